"""The numbers behind the pictures, as CSV files for ``dvc plots``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.ml.metrics import Reliability

# dvc's confusion template counts lines in the browser; more lines than this would only make the page slow.
CONFUSION_LINES = 20_000


def read_history(stage: Path) -> list[dict[str, Any]]:
    """The training history of a stage, a mapping for each line; empty where nothing was trained."""
    path = stage / "history.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_tables(
    folder: Path,
    models: dict[str, dict[str, Any]],
    confusions: dict[str, np.ndarray],
    curves: dict[str, Reliability],
    histories: dict[str, list[dict[str, Any]]],
    class_names: Sequence[str],
) -> None:
    """Write groups.csv, reliability.csv, training.csv, validation.csv and confusion/MODEL.csv.

    Args:
        folder: where to.
        models: the ``models`` part of metrics.json.
        confusions: a matrix of shape (classes, classes) for each model, actual by predicted.
        curves: a reliability curve for each model.
        histories: the lines of each model's history.
        class_names: names of the classes, in order.
    """
    (folder / "confusion").mkdir(parents=True)
    for name, confusion in confusions.items():
        lines = _confusion_lines(confusion, class_names)
        _write(folder / "confusion" / f"{name}.csv", ("actual", "predicted"), lines)
    _write(folder / "groups.csv", ("model", "group", "accuracy", "low", "high", "rows"), _group_lines(models))
    _write(folder / "reliability.csv", ("model", "confidence", "accuracy", "rows"), _reliability_lines(curves))
    for file, columns, keys in (
        ("training.csv", ("model", "phase", "step", "loss"), ("phase", "step", "loss")),
        (
            "validation.csv",
            ("model", "phase", "step", "loss", "accuracy"),
            ("phase", "step", "eval_loss", "eval_accuracy"),
        ),
    ):
        _write(folder / file, columns, _history_lines(histories, keys))


def _confusion_lines(confusion: np.ndarray, class_names: Sequence[str]) -> Iterable[tuple[str, str]]:
    """A line for each row; in a large test set, the same shares in fewer lines."""
    scale = min(1.0, CONFUSION_LINES / confusion.sum())
    for (actual, predicted), rows in np.ndenumerate(confusion):
        for _ in range(int(np.ceil(rows * scale))):
            yield class_names[actual], class_names[predicted]


def _group_lines(models: dict[str, dict[str, Any]]) -> Iterable[tuple[Any, ...]]:
    for name, model in models.items():
        for group, scores in model["groups"].items():
            yield name, group, scores["accuracy"], *scores["accuracy_ci"], scores["rows"]


def _reliability_lines(curves: dict[str, Reliability]) -> Iterable[tuple[Any, ...]]:
    for name, curve in curves.items():
        for index in np.flatnonzero(curve.rows):
            yield name, float(curve.confidence[index]), float(curve.accuracy[index]), int(curve.rows[index])


def _history_lines(histories: dict[str, list[dict[str, Any]]], keys: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    for name, history in histories.items():
        for line in history:
            if all(key in line for key in keys):
                yield name, *(line[key] for key in keys)


def _write(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(lines)
