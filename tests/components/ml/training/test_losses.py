"""The losses by their properties, and every known wrong form of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from components.ml.tasks.task import IGNORED
from components.ml.training.losses import ce_loss, kd_loss

ROWS, CLASSES, T = 12, 5, 3.0


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Student and teacher logits, shape (12, 5)."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, ROWS, CLASSES, generator=draw, dtype=torch.float64)
    return student.requires_grad_(True), teacher


def by_definition(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * KL(softmax(z_t/T) || softmax(z_s/T)), summed over classes, averaged over rows, term by term."""
    p, q = F.softmax(teacher / temperature, -1), F.softmax(student / temperature, -1)
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


def test_kd_is_the_definition(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert torch.allclose(kd_loss(*logits, T).double(), by_definition(*logits, T), atol=1e-6)


def test_kd_has_zero_value_and_gradient_when_student_equals_teacher(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, _ = logits
    loss = kd_loss(student, student.detach().clone(), T)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


WRONG_FORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean over classes too": lambda s, t: T**2 * kl(s / T, t / T, "mean"),
    "divided by T squared": lambda s, t: kl(s / T, t / T, "batchmean") / T**2,
    "T squared dropped": lambda s, t: kl(s / T, t / T, "batchmean"),
    "probabilities divided by T": lambda s, t: (
        T**2 * F.kl_div((F.softmax(s, -1) / T).log(), F.softmax(t, -1) / T, reduction="batchmean")
    ),
    "batchmean over sequences, not positions": lambda s, t: (
        T**2 * kl(s.view(2, 6, CLASSES) / T, t.view(2, 6, CLASSES) / T, "batchmean")
    ),
    "student and teacher swapped": lambda s, t: T**2 * kl(t / T, s / T, "batchmean"),
}


def kl(student: torch.Tensor, teacher: torch.Tensor, reduction: str) -> torch.Tensor:
    """PyTorch's KL divergence of two sets of logits."""
    return F.kl_div(F.log_softmax(student, -1), F.softmax(teacher, -1), reduction=reduction)


@pytest.mark.parametrize("form", WRONG_FORMS)
def test_kd_is_none_of_the_known_wrong_forms(logits: tuple[torch.Tensor, torch.Tensor], form: str) -> None:
    right, wrong = kd_loss(*logits, T).double(), WRONG_FORMS[form](*logits)
    assert not torch.isclose(right, wrong, rtol=1e-3)


def test_kd_gradient_keeps_its_size_over_temperatures(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    """For large T the gradient tends to (z_s - z_t) / classes for centred logits (Hinton et al. 2015, eq. 4)."""
    student, teacher = (values.detach() - values.detach().mean(-1, keepdim=True) for values in logits)
    student.requires_grad_(True)
    kd_loss(student, teacher, 1000.0).backward()
    expected = (student.detach() - teacher) / CLASSES / ROWS
    assert student.grad is not None
    assert torch.allclose(student.grad, expected, atol=1e-3)


def test_kd_sends_no_gradient_to_the_teacher(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = logits
    teacher.requires_grad_(True)
    kd_loss(student, teacher, T).backward()
    assert teacher.grad is None


def test_unlabelled_rows_take_no_part_in_the_cross_entropy(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, _ = logits
    labels = torch.tensor([1, 2] + [IGNORED] * (ROWS - 2))
    assert torch.allclose(ce_loss(student, labels), F.cross_entropy(student[:2].float(), labels[:2]))


def test_cross_entropy_without_any_label_is_zero_and_finite(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert ce_loss(logits[0], torch.full((ROWS,), IGNORED)).item() == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_and_smoothing_are_pytorchs(logits: tuple[torch.Tensor, torch.Tensor], smoothing: float) -> None:
    student = logits[0].float()
    labels = torch.tensor([0, 1, IGNORED, 2, 3, IGNORED, 4, 0, 1, 2, 3, 1])
    weights = torch.tensor([1.0, 0.2, 3.0, 0.5, 2.0])
    expected = F.cross_entropy(student, labels, weight=weights, ignore_index=IGNORED, label_smoothing=smoothing)
    assert torch.allclose(ce_loss(student, labels, class_weights=weights, label_smoothing=smoothing), expected)


def test_logits_of_positions_in_sequences_are_averaged_over_positions_not_over_sequences(
    logits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    student, teacher = logits
    in_sequences = kd_loss(student.view(2, ROWS // 2, -1), teacher.view(2, ROWS // 2, -1), T)
    assert torch.allclose(in_sequences, kd_loss(student, teacher, T))
