"""The loss that a phase minimises: cross-entropy, distillation, or both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.ml.tasks.task import IGNORED


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
    return temperature**2 * total / max(positions or student_logits[..., 0].numel(), 1.0)


def ce_loss(
    student_logits: Tensor,
    labels: Tensor,
    labelled: float | None = None,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy at temperature 1, averaged over the labelled positions; 0 where there is none.

    With class weights it is the weighted mean, as in PyTorch; label smoothing is that of Szegedy et al. 2016.

    Args:
        student_logits: shape (N, classes).
        labels: shape (N,), class index or ``IGNORED``.
        labelled: what to divide the sum by, see :func:`labelled_weight`; that of these labels, unless they
            are a part of a larger batch.
        class_weights: shape (classes,), in float32.
        label_smoothing: the share of the target that is spread over all classes.
    """
    total = F.cross_entropy(
        student_logits.float(),
        labels,
        weight=class_weights,
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    weight = float(labelled_weight(labels, class_weights)) if labelled is None else labelled
    return total / (weight if weight > 0 else 1.0)


def labelled_weight(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """How many labels there are, each counted by its class's weight; a scalar in float64."""
    known = labels[labels != IGNORED]
    weights = torch.ones_like(known, dtype=torch.float32) if class_weights is None else class_weights[known]
    return weights.cpu().double().sum()  # not every device has float64
