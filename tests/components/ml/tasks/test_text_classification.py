"""One class a row: what is told of it, and that batches and neighbours don't matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from components.ml.rows.tokenised import Collator
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import IGNORED, Reading
from components.ml.training.objectives import Labels
from tests.components.ml.tasks.tools import LABELS, assert_micro_batches_add_up, items_of, model_of, own_logits, sample

NAME = "text-classification"
TASK, NAMES = TASKS[NAME], LABELS[NAME]


@pytest.mark.parametrize("reading", [Reading(64), Reading(9, 3)], ids=["cut", "windows"])
def test_the_loss_is_that_of_labelled_and_of_taught_windows(
    reading: Reading, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows: Any = sample(NAME, 8, longest=20)
    rows[2] = (rows[2][0], None)
    taught = [place not in (1, 5) for place in range(8)]
    items, given = items_of(tmp_path, NAME, rows, tokenizer, reading, taught)
    owners = [
        row
        for row, (text, _) in enumerate(rows)
        for _ in TASK.windows(tokenizer, [text], reading)[0]  # each window learns what its row is
    ]
    assert [item["label"] for item in items] == [IGNORED if row == 2 else rows[row][1] for row in owners]
    assert len(items) == len(rows) or reading.stride is not None
    model = model_of(NAME, tokenizer)
    objective = Labels(task=TASK, alpha=0.6, beta=0.4, temperature=2.0)
    loss = assert_micro_batches_add_up(model, objective, Collator(tokenizer, TASK, 3), items)
    hard, soft = [], []
    for row, item in zip(owners, items, strict=True):
        logits = own_logits(model, tokenizer, NAME, item["input_ids"])
        if item["label"] != IGNORED:
            hard.append(-logits.log_softmax(dim=-1)[item["label"]])
        if (theirs := given[row]) is not None:
            p = (torch.from_numpy(theirs[0]) / 2).softmax(dim=-1)
            soft.append(4 * (p * (p.log() - (logits / 2).log_softmax(dim=-1))).sum())
    expected = 0.6 * torch.stack(soft).mean() + 0.4 * torch.stack(hard).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_smoothing_and_weights_are_pytorchs(tokenizer: PreTrainedTokenizerBase) -> None:
    logits, weights = torch.randn(6, 3), torch.tensor([1.0, 0.2, 3.0])
    labels = torch.tensor([0, 2, IGNORED, 1, 1, 0])
    total = TASK.labelled(labels, weights)
    found = TASK.hard_loss(logits, labels, float(total), weights, 0.1)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, weights, label_smoothing=0.1))


def test_confidence_is_the_largest_probability() -> None:
    logits = [np.array([[2.0, 0.0, -np.inf]]) / 2.0, np.zeros((1, 3))]
    assert TASK.confidence(logits) == pytest.approx([1 / (1 + np.exp(-1)), 1 / 3])


def test_a_row_is_told_by_its_class() -> None:
    logits = [np.array([[0.0, 3.0, 1.0]], np.float32), np.array([[5.0, 5.0, 1.0]], np.float32)]
    predicted = TASK.decode(["a", "b"], logits, NAMES, None)
    assert predicted == [1, 0]
    told = TASK.answers(["a", "b"], predicted, logits, NAMES)
    assert [row["label"] for row in told] == ["neutral", "negative"]
    assert told[0]["score"] == pytest.approx(np.exp(3) / (1 + np.exp(3) + np.exp(1)))
    assert TASK.right([1, 1], predicted) == pytest.approx([True, False])
    assert TASK.agreement([1, 0, 2], [1, 1, 2]) == pytest.approx(2 / 3)
    assert [TASK.said(value, NAMES) for value in (0, 2)] == ["negative", "positive"]


def test_scores_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    actual, predicted = draw.integers(0, 3, 60), draw.integers(0, 3, 60)
    found = TASK.scores(np.asarray(TASK.counts(actual, predicted, NAMES).sum(axis=0)), NAMES)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(actual, predicted))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(actual, predicted, average="macro"))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(actual, predicted))
