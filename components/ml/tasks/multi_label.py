"""Any number of labels for a text or a pair of texts, each of them there or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.ml.tasks.row_task import RowTask, text_of
from components.ml.tasks.task import Counts, Example, Fault, Metric, Window

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from components.ml.rows.inputs import Input

SEPARATORS = ("|", ";", ",")
"""What may stand between the labels of a field of a CSV or TSV file: the first of them that is there."""


class MultiLabelClassification(RowTask):
    """A logit for each label, compared by binary cross-entropy and by KL divergence of each label's two outcomes."""

    name = "multi-label-classification"
    columns = ("text", "labels")
    optional = ("text_pair",)
    target = "labels"
    lists = ("labels",)
    lists_as_text = ("labels",)
    rows_by_class = True
    problem_type = "multi_label_classification"
    validated = ("loss", "micro_f1", "macro_f1")
    metrics = (
        Metric("micro_f1", "micro F1"),
        Metric("macro_f1", "macro F1"),
        Metric("micro_precision", "micro precision"),
        Metric("micro_recall", "micro recall"),
        Metric("map", "mean average precision"),
        Metric("exact_match", "rows with just their labels"),
    )

    def read(self, values: Mapping[str, Any]) -> Example:
        """``labels`` is a list, a JSON list, or names with ``|``, ``;`` or ``,`` between them; empty for none."""
        texts = (text_of(values.get("text")), *([text_of(values["text_pair"])] if "text_pair" in values else []))
        found = _listed(values.get("labels"))
        if found is None or all(isinstance(name, str | int | float) and str(name).strip() for name in found):
            return Example(texts, names=None if found is None else sorted({str(name).strip() for name in found}))
        wrong = next(name for name in found if not isinstance(name, str | int | float) or not str(name).strip())
        return Example(texts, faults=(Fault("with a label that is no name", f"{wrong!r:.40}"),))

    def target_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.int32())

    def encode(self, example: Example, places: Mapping[str, int]) -> Any:
        return None if example.names is None else sorted(places[name] for name in example.names)

    def stratum(self, example: Example) -> str:
        return self.shown(example) or ""

    def shown(self, example: Example) -> str | None:
        return None if example.names is None else ", ".join(example.names)

    def batch_targets(self, targets: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]]) -> Tensor:
        """Ones and zeros of shape (rows, labels), float32; a row of NaN has no labels."""
        import torch

        width = next((len(target) for target in targets if target is not None), 1)
        return torch.tensor([[float("nan")] * width if target is None else target for target in targets])

    def hard_loss(
        self, logits: Tensor, labels: Tensor, labelled: float, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        import torch.nn.functional as F

        known = ~labels.isnan().any(dim=-1)
        if not bool(known.any()):
            return logits.sum() * 0.0
        wanted = labels[known] * (1 - smoothing) + smoothing / 2
        total = F.binary_cross_entropy_with_logits(logits[known].float(), wanted, reduction="none").mean(dim=-1).sum()
        return total / max(labelled, 1.0)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, taught: float) -> Tensor:
        """``T^2`` times the KL divergence of each label's Bernoulli distributions, averaged over labels and rows."""
        import torch.nn.functional as F

        mine, theirs = logits.float() / temperature, teacher.detach().float() / temperature
        there = theirs.sigmoid()
        part = there * (F.logsigmoid(theirs) - F.logsigmoid(mine)) + (1 - there) * (
            F.logsigmoid(-theirs) - F.logsigmoid(-mine)
        )
        return temperature**2 * part.mean(dim=-1).sum() / max(taught, 1.0)

    def labelled(self, labels: Tensor, weights: Tensor | None) -> Tensor:
        return (~labels.isnan().any(dim=-1)).sum().cpu().double()

    def window_target(self, window: Window, target: Any, classes: int) -> Any:
        """Ones and zeros, one for each label."""
        present = set(target)
        return [1.0 if index in present else 0.0 for index in range(classes)]

    def validation(self, found: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        from components.ml.statistics.multilabel import label_counts, label_scores

        known = labels == labels
        rows = known.all(axis=-1)
        scores = label_scores(label_counts(labels[rows], found[rows] > 0).sum(axis=0), labels.shape[-1])
        return {name: float(scores[name]) for name in ("micro_f1", "macro_f1")}

    def prediction_type(self) -> pa.DataType:
        return self.target_type()

    def decode(
        self, inputs: Sequence[Input], logits: Sequence[np.ndarray], names: Sequence[str], tokenizer: Any
    ) -> list[Any]:
        return [[index for index, logit in enumerate(one[0].tolist()) if logit > 0] for one in logits]

    def said(self, value: Any, names: Sequence[str]) -> str:
        return ", ".join(names[index] for index in value) or "(none)"

    def counts(self, targets: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> Counts:
        """Hits, predicted and actual rows by label, then rows with just their labels and rows."""
        import numpy as np

        from components.ml.statistics.multilabel import label_counts

        own = label_counts(_dense(targets, len(names)), _dense(predictions, len(names)))
        exact = np.array([sorted(a) == sorted(b) for a, b in zip(targets, predictions, strict=True)], dtype=np.int64)
        return np.concatenate([own, exact[:, None], np.ones_like(exact)[:, None]], axis=1)

    def scores(self, sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        from components.ml.statistics.multilabel import label_scores

        return {
            **label_scores(sums[..., :-2], len(names)),
            "exact_match": sums[..., -2] / sums[..., -1],
        }

    def beside(
        self, targets: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> dict[str, Any]:
        import numpy as np

        from components.ml.statistics.multilabel import mean_average_precision

        return {"map": mean_average_precision(_dense(targets, len(names)), np.concatenate(list(logits)))}

    def right(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray | None:
        import numpy as np

        return np.array([sorted(a) == sorted(b) for a, b in zip(targets, predictions, strict=True)], dtype=bool)

    def agreement(self, predictions: Sequence[Any], others: Sequence[Any]) -> float:
        same = self.right(predictions, others)
        assert same is not None
        return float(same.mean())

    def answers(
        self, inputs: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        """``labels``: the names of those that are there; ``scores``: the probability of every label."""
        import numpy as np

        told = []
        for found, one in zip(predictions, logits, strict=True):
            probabilities = 1 / (1 + np.exp(-one[0].astype(np.float64)))
            told.append(
                {
                    "labels": [names[index] for index in found],
                    "scores": dict(zip(names, probabilities.tolist(), strict=True)),
                }
            )
        return told


def _listed(value: Any) -> list[Any] | None:
    """The names that a value lists; None where there is no value."""
    if value is None:
        return None
    if not isinstance(value, str):
        return list(value) if isinstance(value, list | tuple) else [value]
    if value.lstrip().startswith("["):
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if isinstance(found, list):
            return found
    if not value.strip():
        return []
    separator = next((mark for mark in SEPARATORS if mark in value), None)
    return [value] if separator is None else [name for name in value.split(separator) if name.strip()]


def _dense(rows: Sequence[Any], labels: int) -> np.ndarray:
    """Lists of labels as ones and zeros, int64 of shape (rows, labels)."""
    import numpy as np

    dense = np.zeros((len(rows), labels), dtype=np.int64)
    for place, row in enumerate(rows):
        dense[place, list(row)] = 1
    return dense
