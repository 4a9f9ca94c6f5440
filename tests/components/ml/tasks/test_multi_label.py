"""Any number of labels a row: each of them is a distribution of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from components.ml.rows.tokenised import Collator
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading
from components.ml.training.objectives import Labels
from tests.components.ml.tasks.tools import (
    LABELS,
    assert_micro_batches_add_up,
    gradient,
    items_of,
    model_of,
    own_logits,
    sample,
)

NAME = "multi-label-classification"
TASK, NAMES = TASKS[NAME], LABELS[NAME]


def entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    p = logits.sigmoid()
    return -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean()


def divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2`` times the sum over both outcomes, averaged over labels."""
    p, q = (teacher / temperature).sigmoid(), (logits / temperature).sigmoid()
    both = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return temperature**2 * both.mean()


@pytest.mark.parametrize("reading", [Reading(64), Reading(9, 3)], ids=["cut", "windows"])
def test_the_loss_is_that_of_labelled_and_of_taught_windows(
    reading: Reading, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows: Any = sample(NAME, 8, longest=20)
    rows[2], rows[3] = (rows[2][0], None), (rows[3][0], [])
    taught = [place not in (1, 5) for place in range(8)]
    items, given = items_of(tmp_path, NAME, rows, tokenizer, reading, taught)
    owners = [row for row, (text, _) in enumerate(rows) for _ in TASK.windows(tokenizer, [text], reading)[0]]
    model = model_of(NAME, tokenizer)
    objective = Labels(task=TASK, alpha=0.6, beta=0.4, temperature=2.0)
    loss = assert_micro_batches_add_up(model, objective, Collator(tokenizer, TASK, 4), items)
    hard, soft = [], []
    for row, item in zip(owners, items, strict=True):
        logits = own_logits(model, tokenizer, NAME, item["input_ids"])
        if (labels := rows[row][1]) is not None:
            hard.append(entropy(logits, torch.tensor([float(label in labels) for label in range(4)])))
        if (theirs := given[row]) is not None:
            soft.append(divergence(logits, torch.from_numpy(theirs[0]), 2.0))
    expected = 0.6 * torch.stack(soft).mean() + 0.4 * torch.stack(hard).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_a_micro_batch_without_labels_adds_nothing(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows: Any = [*sample(NAME, 2), *((text, None) for text, _ in sample(NAME, 3, seed=1))]
    items, _ = items_of(tmp_path, NAME, rows, tokenizer)
    model, objective, collate = model_of(NAME, tokenizer), Labels(task=TASK), Collator(tokenizer, TASK, 4)
    alone, with_others = (gradient(model, objective, collate, parts) for parts in ([items[:2]], [items[:2], items[2:]]))
    assert alone[0] == with_others[0]
    for one, other in zip(alone[1], with_others[1], strict=True):
        torch.testing.assert_close(one, other)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn() -> None:
    logits = (10 * torch.randn(5, 4)).requires_grad_()
    loss = TASK.soft_loss(logits, logits.detach(), 3.0, 5)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_soft_loss_is_finite_where_both_are_sure(temperature: float) -> None:
    sure = torch.tensor([[80.0, -80.0], [-80.0, 80.0]])
    assert torch.isfinite(TASK.soft_loss(sure, -sure, temperature, 2))


def test_smoothing_pulls_both_outcomes_to_the_middle() -> None:
    logits, labels = torch.randn(3, 4), torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [float("nan")] * 4])
    expected = sum(entropy(logits[row], labels[row] * 0.8 + 0.1) for row in (0, 1)) / 2
    torch.testing.assert_close(TASK.hard_loss(logits, labels, 2, None, 0.2), torch.as_tensor(expected))


def test_labels_are_those_with_a_logit_above_zero() -> None:
    logits = [np.array([row], np.float32) for row in ([0.1, -1, 2, 0], [-1, -2, -3, -0.1])]
    predicted = TASK.decode(["a", "b"], logits, NAMES, None)
    assert predicted == [[0, 2], []]
    first, second = TASK.answers(["a", "b"], predicted, logits, NAMES)
    assert (first["labels"], second["labels"]) == (["battery", "screen"], [])
    assert first["scores"]["screen"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert list(second["scores"]) == NAMES
    assert [TASK.said(value, NAMES) for value in predicted] == ["battery, screen", "(none)"]
    assert np.array_equal(TASK.right([[2, 0], [1]], predicted), [True, False])


def test_scores_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    actual, logits = draw.integers(0, 2, (50, 4)), draw.normal(size=(50, 4)).astype(np.float32)
    targets = [np.flatnonzero(row).tolist() for row in actual]
    rows = list(logits[:, None])
    predicted = TASK.decode([""] * 50, rows, NAMES, None)
    found = TASK.scores(np.asarray(TASK.counts(targets, predicted, NAMES).sum(axis=0)), NAMES)
    found |= TASK.beside(targets, predicted, rows, NAMES)
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(actual, logits > 0, average="micro"))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(actual, logits > 0, average="macro"))
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(actual, logits > 0))
    assert found["map"] == pytest.approx(metrics.average_precision_score(actual, logits, average="macro"))
    measured = TASK.validation(logits, actual.astype(np.float32), NAMES)
    assert measured == {name: pytest.approx(found[name]) for name in ("micro_f1", "macro_f1")}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ('["a", "b; c"]', ["a", "b; c"]),
        ("a|b, c", ["a", "b, c"]),
        ("屏幕; price", ["price", "屏幕"]),
        ("", []),
        ([], []),
        (None, None),
    ],
)
def test_labels_are_read_as_a_list_or_as_text(given: Any, names: list[str] | None) -> None:
    found = TASK.read({"text": "x", "labels": given})
    assert (found.names, found.faults) == (names, ())
    assert TASK.encode(found, {name: place for place, name in enumerate(names or [])}) == (
        None if names is None else list(range(len(names)))
    )


def test_a_label_that_is_no_name_is_a_fault() -> None:
    (fault,) = TASK.read({"text": "x", "labels": ["a", {"b": 1}]}).faults
    assert (fault.what, fault.detail) == ("with a label that is no name", "{'b': 1}")
