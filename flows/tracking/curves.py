"""Training curves: lines of history.jsonl as MLflow metrics, each step once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking.record import metric_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Seen = set[tuple[str, int]]
_TRAINING = ("loss", "learning_rate", "grad_norm", "epoch")
_MEASURED = "eval_"  # how the Trainer begins the names of what it measures on the validation rows
_CURVES = ("train/", "validation/")
_BATCH = 1000  # MLflow's limit for one call


def read(history: Path) -> list[dict[str, Any]]:
    """The lines of a history file."""
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines() if line.strip()]


def logged(client: MlflowClient, run_id: str) -> Seen:
    """Which points of the curves a run has."""
    names = [name for name in client.get_run(run_id).data.metrics if name.startswith(_CURVES)]
    return {(name, metric.step) for name in names for metric in client.get_metric_history(run_id, name)}


def add(client: MlflowClient, run_id: str, lines: Iterable[Mapping[str, Any]], seen: Seen) -> None:
    """Log the points that are not in ``seen``, and remember them there."""
    new = [point for point in _points(lines) if (point.key, point.step) not in seen]
    for start in range(0, len(new), _BATCH):
        batch = new[start : start + _BATCH]
        client.log_batch(run_id, metrics=batch)
        seen.update((point.key, point.step) for point in batch)


def _points(lines: Iterable[Mapping[str, Any]]) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(name, float(line[key]), now, int(line["step"]))
        for line in lines
        for key, name in _curves_of(line).items()
        if line[key] is not None
    ]


def _curves_of(line: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a line that are points of a curve, and the curves' names; ``eval_TASK/NAME`` is of another task."""
    measured = {key: key.removeprefix(_MEASURED).split("/") for key in line if key.startswith(_MEASURED)}
    if measured:  # the epoch of a validation is told by the last line of its training
        return {key: "/".join(["validation", *map(metric_name, parts)]) for key, parts in measured.items()}
    return {key: f"train/{key}" for key in _TRAINING if key in line}
