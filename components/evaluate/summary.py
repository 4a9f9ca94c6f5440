"""From predictions to metrics.json: scores, intervals and paired differences, over all rows and by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.evaluate.gains import Predictions, gains
from components.evaluate.scoring import Rows, Scored
from components.ml.statistics import bootstrap, metrics
from components.params.stages import Bootstrap, Evaluate

DIFFERENCES = (
    ("student", "teacher"),
    ("student", "student_without_distillation"),
    ("lora", "student"),
    ("lora", "teacher"),
    ("lora_onnx", "lora"),
    ("lora_int8", "lora"),
)


INTERVALS = 2
"""The first metrics of a task have an interval, as far as they follow from sums over rows."""


class Sample:
    """Some of the test rows, every model's predictions on them, and the bootstrap over their documents."""

    def __init__(self, rows: Rows, scored: dict[str, Scored], chosen: np.ndarray, settings: Bootstrap) -> None:
        first = next(iter(scored.values()))
        self.task, self.names, self.confidence = first.task, first.class_names, settings.confidence
        self.targets = rows.targets[chosen]
        self.predictions = {name: model.predictions[chosen] for name, model in scored.items()}
        self.logits = {name: None if model.logits is None else model.logits[chosen] for name, model in scored.items()}
        documents = rows.documents[chosen]
        self.rows, self.documents = len(documents), len(np.unique(documents))
        counts = {
            name: self.task.counts(self.targets, predicted, self.names) for name, predicted in self.predictions.items()
        }
        self.values = {
            name: self.task.scores(np.asarray(each.sum(axis=0)), self.names) for name, each in counts.items()
        }
        leading = [metric for metric in self.task.metrics[:INTERVALS] if metric.key in next(iter(self.values.values()))]
        self.lowest = {metric.key: metric.lowest for metric in leading}
        blocks = [
            self.task.scores(sums, self.names)
            for sums in bootstrap.resample_sums(documents, list(counts.values()), settings.resamples, settings.seed)
        ]
        self.draws = {
            key: dict(zip(counts, np.concatenate([block[key] for block in blocks], axis=1), strict=True))
            for key in self.lowest
        }

    def scores(self, name: str) -> dict[str, Any]:
        """Every metric of the task, with the intervals of the first ones."""
        found = {key: float(value) for key, value in self.values[name].items()}
        logits = self.logits[name]
        found |= self.task.beside(self.targets, self.predictions[name], () if logits is None else logits, self.names)
        ordered = [metric.key for metric in self.task.metrics if metric.key in found]
        told = {key: found[key] for key in [*ordered, *(key for key in found if key not in ordered)]}
        return told | {
            f"{key}_ci": self._interval(self.draws[key][name], lowest) for key, lowest in self.lowest.items()
        }

    def difference(self, name: str, other: str) -> dict[str, Any]:
        """The headline metric of a model less that of another on the same rows, with the paired interval."""
        key = self.task.headline.key
        draws = self.draws[key][name] - self.draws[key][other]
        here, there = (float(self.values[model][key]) for model in (name, other))
        return {key: here - there, "ci": self._interval(draws, lowest=-1.0)}

    def _interval(self, draws: np.ndarray, lowest: float) -> list[float]:
        # One document says nothing about other documents: every draw would be the same, and look certain.
        if self.documents < 2:
            return [lowest, 1.0]
        return list(bootstrap.percentile_interval(draws, self.confidence))


def summarise(
    rows: Rows, scored: dict[str, Scored], by_seed: Mapping[int, Predictions], settings: Evaluate, target_group: str
) -> dict[str, Any]:
    """All of metrics.json.

    Args:
        rows: the test rows.
        scored: the models that are compared one by one.
        by_seed: the predictions of the students and fine-tunes of each seed, the first seed's being those of
            ``scored``.
        settings: of the bootstrap and the calibration.
        target_group: the group of the fine-tune, or ``all``.
    """
    everything = Sample(rows, scored, np.ones(len(rows), dtype=bool), settings.bootstrap)
    groups = {
        name: Sample(rows, scored, rows.groups == code, settings.bootstrap)
        for code, name in enumerate(rows.group_names)
    }
    task = everything.task
    return {
        "task": task.name,
        "headline": task.headline.key,
        "models": {name: _model(name, scored, everything, groups, settings) for name in scored},
        "differences": {
            f"{name} - {other}": everything.difference(name, other)
            | {"groups": {group: sample.difference(name, other) for group, sample in groups.items()}}
            for name, other in DIFFERENCES
            if name in scored
        },
        "gains": gains(rows, task, everything.names, by_seed, settings.bootstrap, target_group),
        "rows": len(rows),
        "documents": everything.documents,
        "target_group": target_group,
        "confidence": settings.bootstrap.confidence,
    }


def reliability(name: str, scored: dict[str, Scored], rows: Rows, bins: int) -> metrics.Reliability:
    """How a model's confidence compares with its accuracy, where a row has one class."""
    model = scored[name]
    assert model.confidence is not None
    return metrics.reliability_curve(model.confidence, model.predictions == rows.targets, bins)


def _model(
    name: str, scored: dict[str, Scored], everything: Sample, groups: dict[str, Sample], settings: Evaluate
) -> dict[str, Any]:
    task, model, confidence = everything.task, everything.predictions[name], scored[name].confidence
    found = everything.scores(name)
    found["agreement_with_teacher"] = task.agreement(model, everything.predictions["teacher"])
    if task.classes_per_row and confidence is not None:
        curve = metrics.reliability_curve(confidence, model == everything.targets, settings.calibration_bins)
        found["ece"] = metrics.expected_calibration_error(curve)
    return found | {
        "parameters": scored[name].parameters,
        "megabytes": scored[name].megabytes,
        "groups": {
            group: sample.scores(name) | {"rows": sample.rows, "documents": sample.documents}
            for group, sample in groups.items()
        },
    }
