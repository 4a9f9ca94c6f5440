"""One class for a text, or for two texts that are read together, such as a premise and a hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.ml.tasks.row_task import ClassTask, one_class, text_of
from components.ml.tasks.task import Example, Metric

if TYPE_CHECKING:
    import numpy as np


class TextClassification(ClassTask):
    """Class logits, compared by cross-entropy and by KL divergence."""

    name = "text-classification"
    columns = ("text", "label")
    optional = ("text_pair",)
    target = "label"
    metrics = (
        Metric("accuracy", "accuracy"),
        Metric("macro_f1", "macro F1"),
        Metric("macro_precision", "macro precision"),
        Metric("macro_recall", "macro recall"),
        Metric("f1", "F1"),
        Metric("mcc", "MCC", percent=False),
    )

    def read(self, values: Mapping[str, Any]) -> Example:
        texts = (text_of(values.get("text")), *([text_of(values["text_pair"])] if "text_pair" in values else []))
        return Example(texts, names=one_class(values))

    def scores(self, sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Accuracy, macro scores and MCC; F1 of the second class where there are two."""
        import numpy as np

        from components.ml.statistics.metrics import class_scores

        hits, predicted, actual = np.split(sums, 3, axis=-1)
        return class_scores(hits, predicted, actual)
