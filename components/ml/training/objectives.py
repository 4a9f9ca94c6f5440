"""What a phase minimises, batch by batch: true labels, a teacher's logits, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import IGNORED, Task

Batch = Mapping[str, Tensor]
FROZEN_STATES = "frozen_states"
"""What a model is given in place of what its frozen layers would compute; shape (rows, tokens, width)."""
FEATURES = ("input_ids", "attention_mask", "token_type_ids", FROZEN_STATES)
"""What a model is given of a batch; the rest is for the objective."""


class Objective(Protocol):
    """The loss of an accumulated batch as a sum over its micro-batches, so that these give its gradient."""

    def counts(self, batch: Batch) -> Tensor:
        """What the loss's averages run over in this micro-batch, of shape (k,), in float64.

        The trainer sums them over the accumulated batch and over processes.
        """

    def loss(self, model: nn.Module, batch: Batch, counts: Tensor) -> Tensor:
        """This micro-batch's part of the loss of the accumulated batch that ``counts`` describes; a scalar."""

    def validate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The mean validation loss of a batch, a scalar, and its logits for the metrics, or None."""


class Terms(Protocol):
    """Losses on what lies inside the student and its teacher."""

    def counts(self, batch: Batch) -> Tensor:
        """As in :class:`Objective`."""

    def outputs(self, model: nn.Module, features: dict[str, Tensor]) -> tuple[Any, object]:
        """The student's output, and what was seen inside it on the way."""

    def loss(self, seen: object, features: dict[str, Tensor], counts: Tensor) -> Tensor:
        """The weighted sum of the terms."""


class Labels(nn.Module):
    """``alpha * soft + beta * hard``, and the terms; with alpha 0 and beta 1 the plain loss against true labels.

    Both are what the task compares: KL divergence and cross-entropy of classes, for instance. The soft one is averaged
    over the positions that have teacher logits (NaN stands for none), the hard one over those that have a label.
    Validation measures the plain hard loss, so that curves of different objectives compare.
    """

    def __init__(
        self,
        *,
        task: Task = TASKS[DEFAULT],
        alpha: float = 0.0,
        beta: float = 1.0,
        temperature: float = 1.0,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        terms: Terms | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights)
        self.terms = terms

    def counts(self, batch: Batch) -> Tensor:
        """Positions with teacher logits, (weighted) positions with a label, then what the terms count."""
        _, labels, teacher = self.task.aligned(None, batch)
        weights = None if self.class_weights is None else self.class_weights.to(labels.device)
        taught = torch.tensor(0) if teacher is None else _taught(teacher).sum()
        own = torch.stack([taught.cpu().double(), self.task.labelled(labels, weights)])
        return own if self.terms is None else torch.cat([own, self.terms.counts(batch).to(own)])

    def loss(self, model: nn.Module, batch: Batch, counts: Tensor) -> Tensor:
        """The part of the accumulated batch's loss; see :class:`Objective`."""
        features = features_of(batch)
        if self.terms is None:
            output, loss = model(**features), None
        else:
            output, seen = self.terms.outputs(model, features)
            loss = self.terms.loss(seen, features, counts[2:])
        logits, labels, teacher = self.task.aligned(self.task.logits(output), batch)
        taught, labelled = counts[:2].tolist()
        loss = logits.sum() * 0.0 if loss is None else loss
        if self.alpha and teacher is not None and taught:
            rows = _taught(teacher)
            loss = loss + self.alpha * self.task.soft_loss(logits[rows], teacher[rows], self.temperature, taught)
        if self.beta and labelled:
            weights, smoothing = self.class_weights, self.label_smoothing
            loss = loss + self.beta * self.task.hard_loss(logits, labels, labelled, weights, smoothing)
        return loss

    def validate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The hard loss, and what the task's validation needs of the logits."""
        whole = self.task.logits(model(**features_of(batch)))
        logits, labels, _ = self.task.aligned(whole, batch)
        labelled = float(self.task.labelled(labels, None))
        return self.task.hard_loss(logits, labels, labelled, None, 0.0), self.task.found(whole, batch)


def features_of(batch: Batch) -> dict[str, Tensor]:
    """What the model reads of a batch."""
    return {name: batch[name] for name in FEATURES if name in batch}


def _taught(teacher: Tensor) -> Tensor:
    """Which rows of a loss have teacher logits, of shape (n,)."""
    return ~teacher.isnan().any(dim=-1)


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Class weights inverse to frequency, mean 1 over the labelled rows: ``N / (classes * N_c)`` (King & Zeng 2001).

    A class without rows gets weight 0.

    Args:
        labels: shape (rows,), class index or ``IGNORED``.
        classes: how many classes there are.
    """
    rows = torch.bincount(labels[labels != IGNORED].long(), minlength=classes).double()
    weights = torch.where(rows > 0, rows.sum() / (classes * rows.clamp(min=1)), torch.zeros_like(rows))
    return weights.float()
