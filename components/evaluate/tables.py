"""The numbers behind the pictures, as CSV files for ``dvc plots``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.ml.statistics.metrics import Reliability
from components.ml.tasks.task import Task
from components.plots import validated

# dvc's confusion template counts lines in the browser; more lines than this would only make the page slow.
CONFUSION_LINES = 20_000
# dvc.yaml names these too, and `dvc plots` complains of a file that isn't there: without the model it has no lines.
OPTIONAL = ("lora_without_distillation", "lora_onnx", "lora_int8")


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
    *,
    task: Task,
) -> None:
    """Write groups.csv, and under confusion/, reliability/, training/ and validation/ one MODEL.csv each.

    A file for each model, since `dvc plots` tells curves apart by their files.

    Args:
        folder: where to.
        models: the ``models`` part of metrics.json.
        confusions: a matrix of shape (classes, classes) for each model, actual by predicted; none where rows have no
            one class.
        curves: a reliability curve for each model; likewise.
        histories: the lines of each model's history.
        class_names: names of the classes, in order.
        task: whose headline is told of each group.
    """
    key, measured = task.headline.key, validated(task).key
    _write(folder / "groups.csv", ("model", "group", key, "low", "high", "rows"), _group_lines(models, key))
    for name in dict.fromkeys([*models, *OPTIONAL]):
        history = histories.get(name, [])
        lines = _confusion_lines(confusions[name], class_names) if name in confusions else ()
        _write(folder / "confusion" / f"{name}.csv", ("actual", "predicted"), lines)
        lines = _reliability_lines(curves[name]) if name in curves else ()
        _write(folder / "reliability" / f"{name}.csv", ("confidence", "accuracy", "rows"), lines)
        lines = _history_lines(history, ("phase", "step", "loss"))
        _write(folder / "training" / f"{name}.csv", ("phase", "step", "loss"), lines)
        lines = _history_lines(history, ("phase", "step", "eval_loss", f"eval_{measured}"))
        _write(folder / "validation" / f"{name}.csv", ("phase", "step", "loss", "score"), lines)


def _confusion_lines(confusion: np.ndarray, class_names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """A line for each row; in a large test set, the same shares in fewer lines."""
    scale = min(1.0, CONFUSION_LINES / confusion.sum())
    for (actual, predicted), rows in np.ndenumerate(confusion):
        for _ in range(int(np.ceil(rows * scale))):
            yield class_names[actual], class_names[predicted]


def _group_lines(models: dict[str, dict[str, Any]], key: str) -> Iterable[tuple[Any, ...]]:
    for name, model in models.items():
        for group, scores in model["groups"].items():
            yield name, group, scores[key], *scores[f"{key}_ci"], scores["rows"]


def _reliability_lines(curve: Reliability) -> Iterable[tuple[Any, ...]]:
    for index in np.flatnonzero(curve.rows):
        yield float(curve.confidence[index]), float(curve.accuracy[index]), int(curve.rows[index])


def _history_lines(history: list[dict[str, Any]], keys: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    for line in history:
        if all(key in line for key in keys):
            yield tuple(line[key] for key in keys)


def _write(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(lines)
