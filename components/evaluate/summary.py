"""From predictions to metrics.json: scores, intervals and paired differences, over all rows and by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.evaluate.gains import Right, gains
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


class Sample:
    """Some of the test rows, every model's predictions on them, and the bootstrap over their documents."""

    def __init__(self, rows: Rows, scored: dict[str, Scored], chosen: np.ndarray, settings: Bootstrap) -> None:
        self.labels = rows.labels[chosen]
        self.predictions = {name: model.predictions[chosen] for name, model in scored.items()}
        self.classes = len(next(iter(scored.values())).class_names)
        stacked = np.stack(list(self.predictions.values()))
        counts = bootstrap.count_documents(rows.documents[chosen], self.labels, stacked, self.classes)
        self.documents = counts.documents
        self.confidence = settings.confidence
        draws = bootstrap.resample(counts, settings.resamples, settings.seed)
        self.accuracy = dict(zip(self.predictions, draws.accuracy, strict=True))
        self.macro_f1 = dict(zip(self.predictions, draws.macro_f1, strict=True))

    def scores(self, name: str) -> dict[str, Any]:
        """Accuracy and macro scores of a model, with their intervals; ``f1`` is that of the second of two classes."""
        confusion = self.confusion(name)
        macro = metrics.macro_scores_of(confusion)
        return {
            "accuracy": metrics.accuracy(self.labels, self.predictions[name]),
            "macro_precision": float(macro.precision),
            "macro_recall": float(macro.recall),
            "macro_f1": float(macro.f1),
            **({"f1": metrics.binary_f1(confusion)} if self.classes == 2 else {}),
            "mcc": metrics.matthews_correlation(confusion),
            "accuracy_ci": self._interval(self.accuracy[name], lowest=0.0),
            "macro_f1_ci": self._interval(self.macro_f1[name], lowest=0.0),
        }

    def difference(self, name: str, other: str) -> dict[str, Any]:
        """Accuracy of a model less that of another on the same rows, with the interval of the paired difference."""
        here, there = (metrics.accuracy(self.labels, self.predictions[model]) for model in (name, other))
        draws = self.accuracy[name] - self.accuracy[other]
        return {"accuracy": here - there, "ci": self._interval(draws, lowest=-1.0)}

    def confusion(self, name: str) -> np.ndarray:
        """A model's confusion matrix on these rows."""
        return metrics.confusion_matrix(self.labels, self.predictions[name], self.classes)

    def _interval(self, draws: np.ndarray, lowest: float) -> list[float]:
        # One document says nothing about other documents: every draw would be the same, and look certain.
        if self.documents < 2:
            return [lowest, 1.0]
        return list(bootstrap.percentile_interval(draws, self.confidence))


def summarise(
    rows: Rows, scored: dict[str, Scored], by_seed: Mapping[int, Right], settings: Evaluate, target_group: str
) -> dict[str, Any]:
    """All of metrics.json.

    Args:
        rows: the test rows.
        scored: the models that are compared one by one.
        by_seed: what the students and fine-tunes of each seed got right, the first seed's being those of ``scored``.
        settings: of the bootstrap and the calibration.
        target_group: the group of the fine-tune, or ``all``.
    """
    everything = Sample(rows, scored, np.ones(len(rows.labels), dtype=bool), settings.bootstrap)
    groups = {
        name: Sample(rows, scored, rows.groups == code, settings.bootstrap)
        for code, name in enumerate(rows.group_names)
    }
    return {
        "models": {name: _model(name, scored, everything, groups, settings) for name in scored},
        "differences": {
            f"{name} - {other}": everything.difference(name, other)
            | {"groups": {group: sample.difference(name, other) for group, sample in groups.items()}}
            for name, other in DIFFERENCES
            if name in scored
        },
        "gains": gains(rows, by_seed, settings.bootstrap, target_group),
        "rows": len(rows.labels),
        "documents": everything.documents,
        "target_group": target_group,
        "confidence": settings.bootstrap.confidence,
    }


def reliability(name: str, scored: dict[str, Scored], labels: np.ndarray, bins: int) -> metrics.Reliability:
    """How a model's confidence compares with its accuracy."""
    model = scored[name]
    return metrics.reliability_curve(model.confidence, model.predictions == labels, bins)


def _model(
    name: str, scored: dict[str, Scored], everything: Sample, groups: dict[str, Sample], settings: Evaluate
) -> dict[str, Any]:
    curve = reliability(name, scored, everything.labels, settings.calibration_bins)
    return everything.scores(name) | {
        "agreement_with_teacher": metrics.agreement(everything.predictions[name], everything.predictions["teacher"]),
        "ece": metrics.expected_calibration_error(curve),
        "parameters": scored[name].parameters,
        "megabytes": scored[name].megabytes,
        "groups": {
            group: sample.scores(name) | {"rows": len(sample.labels), "documents": sample.documents}
            for group, sample in groups.items()
        },
    }
