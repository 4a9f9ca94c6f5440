"""What a kind of task says of itself: its columns, what a model of it computes, what is learnt, decoded and measured.

A model gives each row *positions* with a vector of logits each, of shape (positions, classes): one position where the
row as a whole is judged, the words of a sentence, the tokens of a context. Everything between the data gate and the
report works on these alone, whatever the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from components.ml.rows.inputs import Input

Counts = Any
"""What metrics are computed from: numbers of shape (rows, k), as an array or a sparse array of scipy."""
IGNORED = -100
"""The label of a position without a true label, as in PyTorch's cross-entropy."""


@dataclass(frozen=True)
class Fault:
    """Why a row can't be used: what follows "5 rows ", and what stands there."""

    what: str
    detail: str = ""


@dataclass(frozen=True)
class Example:
    """A row of the user's file as its task reads it.

    Args:
        texts: what is read, one text or two; None where there is none.
        tokens: the words, where the file gives them; ``texts`` then holds them joined by blanks.
        names: the classes that the target names, in its order; None where there is no target.
        value: a target that isn't made of classes: a number, or a list of answers.
        faults: why it can't be used.
    """

    texts: tuple[str | None, ...]
    tokens: list[str] | None = None
    names: list[str] | None = None
    value: Any = None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Window:
    """One pass of a model over a row, or over a part of a row that is too long.

    Args:
        features: what the tokenizer makes of it, a list of int by name.
        at: the places of the tokens whose logits count; None where the row as a whole has logits.
        covers: for each of them the row's position that it stands for.
        spans: for each of them the characters that it stands for, where the target is told in characters.
    """

    features: Mapping[str, Any]
    at: Sequence[int] | None = None
    covers: Sequence[int] = ()
    spans: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Reading:
    """How rows are cut to what a model can read: at most ``max_length`` tokens.

    With a ``stride`` a longer row is read in windows that share that many tokens, and what they say is put together by
    ``pooling`` (``mean`` or ``max``, where the row as a whole is judged); without one it is cut.
    """

    max_length: int
    stride: int | None = None
    pooling: str = "mean"


@dataclass(frozen=True)
class Metric:
    """A number that is measured: its key, its name for people, whether it is shown in percent, the least it can be."""

    key: str
    name: str
    percent: bool = True
    lowest: float = 0.0


class Task(ABC):
    """One kind of task; an instance has no state."""

    name: ClassVar[str]
    """As in ``data.task``."""
    columns: ClassVar[tuple[str, ...]]
    """The roles of columns that every row needs, those of the target last."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Roles that may be left out."""
    target: ClassVar[str]
    """Which of the roles is the target; the pool has none."""
    lists: ClassVar[tuple[str, ...]] = ()
    """Roles whose values are lists or numbers, and must be read as they stand."""
    lists_as_text: ClassVar[tuple[str, ...]] = ()
    """Those of them that a field of a CSV or TSV file may hold, as JSON or as the task has it."""
    labels: ClassVar[tuple[str, ...] | None] = None
    """What the logits of a position stand for, where that isn't read from the data."""
    metrics: ClassVar[tuple[Metric, ...]]
    """What is measured, the headline first: the number that models are compared and promoted by."""
    validated: ClassVar[tuple[str, ...]] = ("loss",)
    """What validation in a phase measures, and early stopping may go by."""
    errors: ClassVar[tuple[str, ...]] = ("loss",)
    """Which of ``validated`` are the better the lower they are."""
    calibrated: ClassVar[bool] = False
    """Whether a position's logits are those of classes of which one is true, so that a temperature can be fitted."""
    classes_per_row: ClassVar[bool] = False
    """Whether a row has one class: then rows are counted by class, and a row's logits by class."""
    rows_by_class: ClassVar[bool] = False
    """Whether the data gate counts rows by the classes that their targets name."""
    takes_label_smoothing: ClassVar[bool] = True
    """Whether its hard loss has a target that can be spread over other classes."""
    takes_class_weights: ClassVar[bool] = False
    """Whether the loss can weight the classes."""

    # Data

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> Example:
        """A row of the user's file from its values by role; values of roles outside of ``lists`` are text or None."""

    @abstractmethod
    def target_type(self) -> pa.DataType:
        """The type of the column ``label`` of canonical rows."""

    def encode(self, example: Example, places: Mapping[str, int]) -> Any:
        """The target as ``target_type`` has it; ``places`` are the classes' numbers. All names are known."""
        return [places[name] for name in example.names or []]

    def stratum(self, example: Example) -> str:
        """Rows of one stratum are spread evenly over splits that are made."""
        return ""

    def document_of(self, example: Example) -> str | None:
        """What rows belong together by, where the user's file has no documents; splits that are made keep it whole."""
        return None

    def shown(self, example: Example) -> str | None:
        """The target as people read it, and as targets are compared; None where there is none."""
        return None if example.names is None else " ".join(example.names)

    least_labels: ClassVar[int] = 2
    """How many different classes the training rows must have at least."""

    def labels_of(self, names: Sequence[str]) -> list[str]:
        """The names of a position's logits from all names of the training rows' targets, which are sorted."""
        return list(names if self.labels is None else self.labels)

    # Models

    @property
    @abstractmethod
    def head(self) -> str:
        """The auto class of transformers, such as ``AutoModelForSequenceClassification``."""

    problem_type: ClassVar[str | None] = None
    """What transformers calls it, where one architecture serves several tasks."""
    markers: ClassVar[tuple[str, ...]] = ()
    """Tokens that are added to the vocabulary."""

    prompts: ClassVar[bool] = False
    """Whether virtual tokens before a text leave its logits in their places."""

    def windows(
        self, tokenizer: PreTrainedTokenizerBase, inputs: Sequence[Input], reading: Reading
    ) -> list[list[Window]]:
        """What a model reads of each row."""
        from components.ml.tasks.windows import whole_rows

        return whole_rows(tokenizer, inputs, reading)

    def logits(self, output: Any) -> Tensor:
        """From a model's output: of shape (rows, classes), or (rows, tokens, classes) where tokens have logits."""
        logits: Tensor = output.logits
        return logits

    def positions(self, inputs: Sequence[Input], tokenizer: Any) -> list[int]:
        """How many positions each row has."""
        return [1] * len(inputs)

    def merge(self, windows: Sequence[Window], logits: Sequence[np.ndarray], reading: Reading) -> np.ndarray:
        """A row's logits, of shape (positions, classes), from its windows' (each of shape (classes,) or (at, classes)).

        A position that no window covers (the row was cut) has NaN.
        """
        from components.ml.tasks.windows import pooled

        return pooled(logits, reading)

    # Learning

    def window_target(self, window: Window, target: Any, classes: int) -> Any:
        """A row's canonical target as what is learnt from one window of it: a list of numbers.

        Where rows have one class (``classes_per_row``), it is just the class's number.
        """
        return target

    @abstractmethod
    def batch_targets(self, targets: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]]) -> Tensor:
        """The labels of a batch from its windows' targets; None stands for no label.

        Args:
            targets: as ``window_target`` gives them.
            ids: the padded ids of the batch, of shape (rows, tokens).
            at: the places of each window's positions among its tokens.
        """

    def batch_teacher(self, teacher: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]], classes: int) -> Tensor:
        """Teacher logits of a batch, NaN where there are none: of shape (rows, classes), or (rows, tokens, classes).

        Args:
            teacher: of each window None, or its positions' logits one after the other.
            ids: as above.
            at: as above.
            classes: how many logits a position has.
        """
        import torch

        logits = torch.full((*ids.shape, classes), float("nan"))
        for row, (places, given) in enumerate(zip(at, teacher, strict=True)):
            if given is not None:
                logits[row, list(places)] = torch.tensor(given).reshape(-1, classes)
        return logits

    @abstractmethod
    def aligned(self, logits: Tensor | None, batch: Mapping[str, Tensor]) -> tuple[Any, Tensor, Tensor | None]:
        """Logits, labels and teacher logits of a batch as rows of one loss: (n, k), (n,) or (n, k), (n, k).

        No logits, given as None, stay None.
        """

    def hard_loss(
        self, logits: Tensor, labels: Tensor, labelled: float, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        """The loss against true labels, cross-entropy unless a task says otherwise: the sum over labelled rows, divided
        by ``labelled``."""
        from components.ml.training.losses import ce_loss

        return ce_loss(logits, labels, labelled, class_weights=weights, label_smoothing=smoothing)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, taught: float) -> Tensor:
        """The loss against teacher logits, KL divergence unless a task says otherwise: the sum over all given rows,
        divided by ``taught``."""
        from components.ml.training.losses import kd_loss

        return kd_loss(logits, teacher, temperature, taught)

    def labelled(self, labels: Tensor, weights: Tensor | None) -> Tensor:
        """What the hard loss is averaged over; a scalar in float64."""
        from components.ml.training.losses import labelled_weight

        return labelled_weight(labels, weights)

    @abstractmethod
    def found(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """What ``validation`` needs of a batch's logits, of shape (rows, any)."""

    @abstractmethod
    def validation(self, found: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """The numbers of ``validated`` over all validation windows; the loss where it isn't their losses' mean."""

    # Predictions

    @abstractmethod
    def prediction_type(self) -> pa.DataType:
        """The type of a prediction, as the evaluation writes it down."""

    @abstractmethod
    def decode(
        self, inputs: Sequence[Input], logits: Sequence[np.ndarray], names: Sequence[str], tokenizer: Any
    ) -> list[Any]:
        """Each row's prediction from its logits of shape (positions, classes)."""

    @abstractmethod
    def said(self, value: Any, names: Sequence[str]) -> str:
        """A canonical target or a prediction as people read it."""

    @abstractmethod
    def counts(self, targets: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> Counts:
        """What ``scores`` sums up: numbers of shape (rows, k), whole ones as int64."""

    @abstractmethod
    def scores(self, sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """From sums of shape (..., k) the metrics that follow from them, each of shape (...), with the headline."""

    def beside(
        self, targets: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> dict[str, Any]:
        """Metrics that don't follow from sums over rows, and details such as scores by class under ``details``."""
        return {}

    @abstractmethod
    def right(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray | None:
        """Which rows are predicted right, booleans of shape (rows,); None where a row is only more or less right."""

    @abstractmethod
    def agreement(self, predictions: Sequence[Any], others: Sequence[Any]) -> float:
        """How far two models say the same, 1 being all the same."""

    def confidence(self, logits: Sequence[np.ndarray]) -> np.ndarray | None:
        """How sure the model is of each row, in [0, 1], of shape (rows,); None where it doesn't say."""
        return None

    # Serving

    @abstractmethod
    def answers(
        self, inputs: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        """What a user is told of each row, by name."""

    @property
    def headline(self) -> Metric:
        """The number that models are compared and promoted by."""
        return self.metrics[0]
