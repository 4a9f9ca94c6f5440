"""What tasks have in common that judge a row as a whole: one position with one vector of logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from components.ml.tasks.task import Counts, Example, Task

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from components.ml.rows.inputs import Input


class RowTask(Task):
    """A task with one position for each row."""

    prompts = True

    @property
    def head(self) -> str:
        return "AutoModelForSequenceClassification"

    def aligned(self, logits: Tensor | None, batch: Mapping[str, Tensor]) -> tuple[Any, Tensor, Tensor | None]:
        return logits, batch["labels"], batch.get("teacher_logits")

    def batch_teacher(self, teacher: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]], classes: int) -> Tensor:
        import torch

        nothing = [float("nan")] * classes
        return torch.tensor([nothing if one is None else one for one in teacher])

    def found(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return logits


class ClassTask(RowTask):
    """A row has one class."""

    classes_per_row = True
    rows_by_class = True
    takes_class_weights = True
    calibrated = True
    validated: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "macro_f1")

    def target_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.int32()

    def encode(self, example: Example, places: Mapping[str, int]) -> Any:
        return None if example.names is None else places[example.names[0]]

    def stratum(self, example: Example) -> str:
        return self.shown(example) or ""

    def batch_targets(self, targets: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]]) -> Tensor:
        import torch

        from components.ml.tasks.task import IGNORED

        return torch.tensor([IGNORED if target is None else target for target in targets])

    def validation(self, found: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        from components.ml.statistics.metrics import classification_metrics

        return classification_metrics(found, labels)

    def prediction_type(self) -> pa.DataType:
        return self.target_type()

    def decode(
        self, inputs: Sequence[Input], logits: Sequence[np.ndarray], names: Sequence[str], tokenizer: Any
    ) -> list[Any]:
        return [int(one[0].argmax()) for one in logits]

    def said(self, value: Any, names: Sequence[str]) -> str:
        return str(names[value] if 0 <= value < len(names) else value)

    def counts(self, targets: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> Counts:
        """Hits, predicted and actual rows by class, sparse, of shape (rows, 3 * classes)."""
        import numpy as np
        from scipy import sparse

        actual, predicted = np.asarray(targets, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
        rows, classes, right = np.arange(len(actual)), len(names), actual == predicted
        line = np.concatenate([rows[right], rows, rows])
        place = np.concatenate([actual[right], classes + predicted, 2 * classes + actual])
        ones = np.ones(len(line), dtype=np.int64)
        return sparse.csr_array((ones, (line, place)), shape=(len(rows), 3 * classes))

    def right(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray | None:
        import numpy as np

        return np.array(np.asarray(targets) == np.asarray(predictions), dtype=bool)

    def agreement(self, predictions: Sequence[Any], others: Sequence[Any]) -> float:
        import numpy as np

        return float(np.mean(np.asarray(predictions) == np.asarray(others)))

    def confidence(self, logits: Sequence[np.ndarray]) -> np.ndarray | None:
        import numpy as np

        from components.ml.statistics.metrics import softmax

        return np.asarray(softmax(np.concatenate(list(logits))).max(axis=-1))

    def answers(
        self, inputs: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        sure = self.confidence(logits)
        assert sure is not None
        return [
            {"label": names[label], "score": score} for label, score in zip(predictions, sure.tolist(), strict=True)
        ]


def text_of(value: Any) -> str | None:
    """A text, or None."""
    return None if value is None else str(value)


def one_class(values: Mapping[str, Any], role: str = "label") -> list[str] | None:
    """The one class that a column names."""
    label = values.get(role)
    return None if label is None else [str(label)]
