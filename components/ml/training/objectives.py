"""What a phase minimises, batch by batch: true labels, a teacher's logits, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from components.ml.training.losses import IGNORED, ce_loss, kd_loss, labelled_weight

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

    def outputs(self, model: nn.Module, features: dict[str, Tensor]) -> tuple[Tensor, object]:
        """The student's logits, and what was seen inside it on the way."""

    def loss(self, seen: object, features: dict[str, Tensor], counts: Tensor) -> Tensor:
        """The weighted sum of the terms."""


class Labels(nn.Module):
    """``alpha * KD(T) + beta * CE``, and the terms; with alpha 0 and beta 1 the plain cross-entropy.

    The KD term is averaged over the rows that have teacher logits (a row of NaN stands for none), the cross-entropy
    over those that have a label. Validation measures the plain cross-entropy, so that curves of different
    objectives compare.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.0,
        beta: float = 1.0,
        temperature: float = 1.0,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        terms: Terms | None = None,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights)
        self.terms = terms

    def counts(self, batch: Batch) -> Tensor:
        """Rows with teacher logits, (weighted) rows with a label, then what the terms count."""
        labels = batch["labels"]
        weights = None if self.class_weights is None else self.class_weights.to(labels.device)
        taught = _taught(batch).sum() if "teacher_logits" in batch else torch.tensor(0)
        own = torch.stack([taught.cpu().double(), labelled_weight(labels, weights)])
        return own if self.terms is None else torch.cat([own, self.terms.counts(batch).to(own)])

    def loss(self, model: nn.Module, batch: Batch, counts: Tensor) -> Tensor:
        """The part of the accumulated batch's loss; see :class:`Objective`."""
        features = features_of(batch)
        if self.terms is None:
            logits, loss = model(**features).logits, None
        else:
            logits, seen = self.terms.outputs(model, features)
            loss = self.terms.loss(seen, features, counts[2:])
        taught, labelled = counts[:2].tolist()
        loss = logits.sum() * 0.0 if loss is None else loss
        if self.alpha and "teacher_logits" in batch and taught:
            rows = _taught(batch)
            loss = loss + self.alpha * kd_loss(logits[rows], batch["teacher_logits"][rows], self.temperature, taught)
        if self.beta and labelled:
            smoothing, weights = self.label_smoothing, self.class_weights
            loss = loss + self.beta * ce_loss(
                logits, batch["labels"], labelled, class_weights=weights, label_smoothing=smoothing
            )
        return loss

    def validate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy and logits."""
        logits = model(**features_of(batch)).logits
        return ce_loss(logits, batch["labels"]), logits


def features_of(batch: Batch) -> dict[str, Tensor]:
    """What the model reads of a batch."""
    return {name: batch[name] for name in FEATURES if name in batch}


def _taught(batch: Batch) -> Tensor:
    """Which rows have teacher logits, of shape (N,)."""
    return ~batch["teacher_logits"].isnan().any(dim=-1)


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
