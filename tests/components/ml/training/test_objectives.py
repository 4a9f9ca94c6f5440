"""The objective of labels and distillation: sums over micro-batches, and who takes part in which term."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.ml.tasks.task import IGNORED
from components.ml.training.losses import ce_loss, kd_loss
from components.ml.training.objectives import Labels, balanced_weights

ROWS, CLASSES, T = 12, 5, 3.0
LABELS = torch.tensor([0, 1, IGNORED, 2, 3, IGNORED, 4, 0, IGNORED, IGNORED, IGNORED, 1])


class Linear(nn.Module):
    """A classifier over vectors that stand for texts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(7, CLASSES)

    def forward(self, input_ids: Tensor) -> Any:
        return SimpleNamespace(logits=self.layer(input_ids))


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Twelve rows; five have no label, two no teacher logits, and none of them lacks both."""
    draw = torch.Generator().manual_seed(1)
    teacher = torch.randn(ROWS, CLASSES, generator=draw)
    teacher[[0, 7]] = float("nan")
    return {"input_ids": torch.randn(ROWS, 7, generator=draw), "labels": LABELS, "teacher_logits": teacher}


def gradient(objective: Labels, batch: dict[str, Tensor], parts: int) -> Tensor:
    model = Linear()
    split = [values.chunk(parts) for values in batch.values()]
    chunks = [dict(zip(batch, values, strict=True)) for values in zip(*split, strict=True)]
    counts = torch.stack([objective.counts(chunk) for chunk in chunks]).sum(0)
    for chunk in chunks:
        objective.loss(model, chunk, counts).backward()
    grad = model.layer.weight.grad
    assert grad is not None
    return grad


OBJECTIVES = {
    "distillation": {"alpha": 0.7, "beta": 0.3, "temperature": T},
    "labels": {},
    "weighted": {"class_weights": torch.tensor([1.0, 0.1, 3.0, 0.5, 2.0]), "label_smoothing": 0.1},
    "only the teacher": {"alpha": 1.0, "beta": 0.0, "temperature": T},
}


@pytest.mark.parametrize("parts", [2, 4, 6, 12])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_add_up_to_the_full_batch(batch: dict[str, Tensor], name: str, parts: int) -> None:
    objective = Labels(**OBJECTIVES[name])
    assert torch.allclose(gradient(objective, batch, 1), gradient(objective, batch, parts), atol=1e-6)


def test_the_loss_is_alpha_kd_plus_beta_ce_each_over_its_own_rows(batch: dict[str, Tensor]) -> None:
    objective, model = Labels(alpha=0.7, beta=0.3, temperature=T), Linear()
    taught = [row for row in range(ROWS) if row not in (0, 7)]
    logits = model(batch["input_ids"]).logits
    expected = 0.7 * kd_loss(logits[taught], batch["teacher_logits"][taught], T) + 0.3 * ce_loss(logits, LABELS)
    assert torch.allclose(objective.loss(model, batch, objective.counts(batch)), expected)


def test_the_cross_entropy_is_taken_at_temperature_one(batch: dict[str, Tensor]) -> None:
    objective, model = Labels(alpha=0.0, beta=1.0, temperature=T), Linear()
    expected = F.cross_entropy(model(batch["input_ids"]).logits, LABELS, ignore_index=IGNORED)
    assert torch.allclose(objective.loss(model, batch, objective.counts(batch)), expected)


def test_nothing_to_learn_from_is_a_loss_of_zero_with_a_gradient_of_zero(batch: dict[str, Tensor]) -> None:
    nothing = batch | {"labels": torch.full((ROWS,), IGNORED), "teacher_logits": batch["teacher_logits"] * torch.nan}
    assert gradient(Labels(alpha=0.5, beta=0.5, temperature=T), nothing, 3).abs().max() == 0


def test_validation_measures_the_plain_cross_entropy_whatever_is_trained(batch: dict[str, Tensor]) -> None:
    model = Linear()
    expected = ce_loss(model(batch["input_ids"]).logits, LABELS)
    for settings in OBJECTIVES.values():
        loss, logits = Labels(**settings).validate(model, batch)
        assert torch.equal(loss, expected)
        assert logits is not None


def test_balanced_weights_give_every_class_the_same_say() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2 + [IGNORED] * 5)
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([10 / 24, 10 / 6, 0.0])
    assert weights[0] * 8 == pytest.approx(float(weights[1] * 2))
