"""A number for a text or a pair of texts, such as how alike two sentences are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.ml.tasks.row_task import RowTask, text_of
from components.ml.tasks.task import Counts, Example, Fault, Metric, Window

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from components.ml.rows.inputs import Input


class Regression(RowTask):
    """One score, compared by the squared error with the true one and with the teacher's."""

    name = "regression"
    columns = ("text", "score")
    optional = ("text_pair",)
    target = "score"
    labels = ("score",)
    least_labels = 0
    problem_type = "regression"
    validated = ("loss", "pearson", "rmse")
    takes_label_smoothing = False
    errors = ("loss", "rmse")
    metrics = (
        Metric("pearson", "Pearson correlation", lowest=-1.0),
        Metric("spearman", "Spearman correlation", lowest=-1.0),
        Metric("rmse", "root mean squared error", percent=False),
    )

    def read(self, values: Mapping[str, Any]) -> Example:
        texts = (text_of(values.get("text")), *([text_of(values["text_pair"])] if "text_pair" in values else []))
        score = values.get("score")
        if score is None:
            return Example(texts)
        try:
            number = float(score)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            return Example(texts, faults=(Fault("with a score that is no number", f"{score!r:.40}"),))
        return Example(texts, value=number)

    def target_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.float64()

    def encode(self, example: Example, places: Mapping[str, int]) -> Any:
        return example.value

    def shown(self, example: Example) -> str | None:
        return None if example.value is None else f"{example.value:g}"

    def window_target(self, window: Window, target: Any, classes: int) -> Any:
        return [float(target)]

    def batch_targets(self, targets: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]]) -> Tensor:
        """Scores of shape (rows, 1), float32; NaN where there is none."""
        import torch

        return torch.tensor([[math.nan] if target is None else target for target in targets])

    def hard_loss(
        self, logits: Tensor, labels: Tensor, labelled: float, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        known = ~labels.isnan()
        return ((logits.float()[known] - labels[known]) ** 2).sum() / max(labelled, 1.0)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, taught: float) -> Tensor:
        """The squared error; a temperature has no meaning here."""
        return ((logits.float() - teacher.detach().float()) ** 2).sum() / max(taught, 1.0)

    def labelled(self, labels: Tensor, weights: Tensor | None) -> Tensor:
        return (~labels.isnan()).sum().cpu().double()

    def validation(self, found: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        from components.ml.statistics.correlation import pearson, root_mean_squared_error

        known = labels == labels
        return {
            "pearson": pearson(labels[known], found[known]),
            "rmse": root_mean_squared_error(labels[known], found[known]),
        }

    def prediction_type(self) -> pa.DataType:
        return self.target_type()

    def decode(
        self, inputs: Sequence[Input], logits: Sequence[np.ndarray], names: Sequence[str], tokenizer: Any
    ) -> list[Any]:
        return [float(one[0, 0]) for one in logits]

    def said(self, value: Any, names: Sequence[str]) -> str:
        return f"{value:.3g}"

    def counts(self, targets: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> Counts:
        """Moments about the middle of the true scores, see :func:`moments`, and the squared error."""
        import numpy as np

        from components.ml.statistics.correlation import moments

        actual, found = np.asarray(targets, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
        return moments(actual, found, float(actual.mean()))

    def scores(self, sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        from components.ml.statistics.correlation import correlation_of, rmse_of

        return {"pearson": correlation_of(sums), "rmse": rmse_of(sums)}

    def beside(
        self, targets: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> dict[str, Any]:
        import numpy as np

        from components.ml.statistics.correlation import pearson, root_mean_squared_error, spearman

        actual, found = np.asarray(targets, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
        return {
            "pearson": pearson(actual, found),
            "spearman": spearman(actual, found),
            "rmse": root_mean_squared_error(actual, found),
        }

    def right(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray | None:
        return None

    def agreement(self, predictions: Sequence[Any], others: Sequence[Any]) -> float:
        import numpy as np

        from components.ml.statistics.correlation import pearson

        return pearson(np.asarray(predictions, dtype=np.float64), np.asarray(others, dtype=np.float64))

    def answers(
        self, inputs: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        return [{"score": score} for score in predictions]
