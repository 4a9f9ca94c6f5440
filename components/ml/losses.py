"""The loss that a phase minimises: cross-entropy, distillation, or both."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""Label of a position without a true label, as in PyTorch's cross-entropy."""


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, positions: float | None = None
) -> Tensor:
    """Distillation loss of Hinton, Vinyals & Dean 2015: ``T^2 * KL(softmax(z_t/T) || softmax(z_s/T))``.

    Summed over classes and averaged over positions. The factor T^2 keeps the size of its gradient
    comparable with the cross-entropy's at any temperature.

    Args:
        student_logits: shape (N, classes) or (..., classes), of valid positions only: no padding.
        teacher_logits: the same shape; no gradient flows into it.
        temperature: T > 0.
        positions: how many positions to average over; all that are given, unless they are a part of a larger batch.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
    total = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return temperature**2 * total / (positions or student_logits[..., 0].numel())


def ce_loss(student_logits: Tensor, labels: Tensor, labelled: float | None = None) -> Tensor:
    """Cross-entropy at temperature 1, averaged over the labelled positions; 0 where there is none.

    Args:
        student_logits: shape (N, classes).
        labels: shape (N,), class index or ``IGNORED``.
        labelled: how many positions to average over; the labelled ones of this batch unless it is
            a part of a larger one.
    """
    total = F.cross_entropy(student_logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    count = float((labels != IGNORED).sum()) if labelled is None else labelled
    return total / max(count, 1.0)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
    positions: float | None = None,
    labelled: float | None = None,
) -> Tensor:
    """``alpha * KD(temperature) + beta * CE``; a term of weight 0 isn't computed.

    Shapes as in :func:`kd_loss` and :func:`ce_loss`; without teacher logits the KD term is absent.
    """
    loss = student_logits.sum() * 0.0
    if alpha and teacher_logits is not None:
        loss = loss + alpha * kd_loss(student_logits, teacher_logits, temperature, positions)
    if beta:
        loss = loss + beta * ce_loss(student_logits, labels, labelled)
    return loss
