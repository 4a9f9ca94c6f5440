"""Training curves: lines of history.jsonl as MLflow metrics, each step once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Seen = set[tuple[str, int]]
_TRAINING = {name: f"train/{name}" for name in ("loss", "learning_rate", "grad_norm", "epoch")}
_VALIDATION = {"eval_loss": "validation/loss", "eval_accuracy": "validation/accuracy"}
_NAMES = _TRAINING | _VALIDATION
_BATCH = 1000  # MLflow's limit for one call


def read(history: Path) -> list[dict[str, Any]]:
    """The lines of a history file."""
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines() if line.strip()]


def logged(client: MlflowClient, run_id: str) -> Seen:
    """Which points of the curves a run has."""
    names = set(client.get_run(run_id).data.metrics) & set(_NAMES.values())
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
        Metric(_NAMES[key], float(value), now, int(line["step"]))
        for line in lines
        for key, value in line.items()
        if key in _NAMES and value is not None and not ("eval_loss" in line and key == "epoch")
    ]
