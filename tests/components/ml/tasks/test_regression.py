"""A number a row: the squared error, and numbers that aren't there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from components.ml.rows.tokenised import Collator
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading
from components.ml.training.objectives import Labels
from components.ml.training.optimisation import training_arguments
from components.params.phases import Phase
from components.params.stages import Runtime
from tests.components.ml.tasks.tools import LABELS, assert_micro_batches_add_up, items_of, model_of, own_logits, sample

NAME = "regression"
TASK, NAMES = TASKS[NAME], LABELS[NAME]


@pytest.mark.parametrize("reading", [Reading(64), Reading(9, 3)], ids=["cut", "windows"])
def test_the_loss_is_that_of_labelled_and_of_taught_windows(
    reading: Reading, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows: Any = sample(NAME, 8, longest=20)
    rows[2] = (rows[2][0], None)
    taught = [place not in (1, 5) for place in range(8)]
    items, given = items_of(tmp_path, NAME, rows, tokenizer, reading, taught)
    owners = [row for row, (text, _) in enumerate(rows) for _ in TASK.windows(tokenizer, [text], reading)[0]]
    model = model_of(NAME, tokenizer)
    objective = Labels(task=TASK, alpha=0.6, beta=0.4, temperature=2.0)
    loss = assert_micro_batches_add_up(model, objective, Collator(tokenizer, TASK, 1), items)
    found = [own_logits(model, tokenizer, NAME, item["input_ids"])[0].item() for item in items]
    hard = [(one - rows[row][1]) ** 2 for one, row in zip(found, owners, strict=True) if rows[row][1] is not None]
    soft = [
        (one - theirs[0, 0]) ** 2 for one, row in zip(found, owners, strict=True) if (theirs := given[row]) is not None
    ]
    assert loss == pytest.approx(0.6 * np.mean(soft) + 0.4 * np.mean(hard), rel=1e-4)


def test_a_number_is_its_own_prediction() -> None:
    logits = [np.array([[1.5]], np.float32), np.array([[-0.25]], np.float32)]
    predicted = TASK.decode(["a", "b"], logits, NAMES, None)
    assert predicted == [1.5, -0.25]
    assert TASK.answers(["a", "b"], predicted, logits, NAMES) == [{"score": 1.5}, {"score": -0.25}]
    assert TASK.right([1.5, 0.0], predicted) is None
    assert TASK.confidence(logits) is None
    assert TASK.said(0.123456, NAMES) == "0.123"


def test_scores_are_numpys_and_validation_measures_the_same() -> None:
    draw = np.random.default_rng(0)
    actual = draw.normal(3, 2, 40)
    found = actual + draw.normal(0, 1, 40)
    scores = TASK.scores(np.asarray(TASK.counts(actual, found, NAMES).sum(axis=0)), NAMES)
    assert scores["pearson"] == pytest.approx(np.corrcoef(actual, found)[0, 1])
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((actual - found) ** 2)))
    assert TASK.beside(actual, found, [], NAMES)["rmse"] == pytest.approx(float(scores["rmse"]))
    labels = np.concatenate([actual, [np.nan]])[:, None]
    measured = TASK.validation(np.concatenate([found, [9.0]])[:, None], labels, NAMES)
    assert measured == {name: pytest.approx(float(scores[name])) for name in ("pearson", "rmse")}
    assert TASK.agreement(actual.tolist(), (2 * actual + 1).tolist()) == pytest.approx(1.0)


def test_no_labels_at_all_are_a_loss_of_zero() -> None:
    labels = TASK.batch_targets([None, None], torch.zeros((2, 3), dtype=torch.long), [[], []])
    assert TASK.labelled(labels, None) == 0
    assert TASK.hard_loss(torch.ones(2, 1), labels, 0, None, 0.0) == 0


@pytest.mark.parametrize("score", ["warm", "nan", "inf"])
def test_a_score_that_is_no_number_is_a_fault(score: str) -> None:
    (fault,) = TASK.read({"text": "x", "score": score}).faults
    assert (fault.what, fault.detail) == ("with a score that is no number", repr(score))
    assert TASK.read({"text": "x", "score": "1e-3"}).value == 0.001


def test_a_smaller_error_is_the_better_one(tmp_path: Path) -> None:
    for metric, greater in (("rmse", False), ("sts/rmse", False), ("pearson", True)):
        stopping = {"objective": "labels", "epochs": 1, "lr": 1e-3, "early_stopping": {"metric": metric}}
        arguments = training_arguments(Phase.model_validate(stopping), tmp_path, 0, Runtime(threads=1), None)
        assert (arguments.metric_for_best_model, arguments.greater_is_better) == (metric, greater)
