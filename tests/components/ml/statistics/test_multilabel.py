"""Multi-label scores against scikit-learn's and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from components.ml.statistics import multilabel


def sample(seed: int, rows: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 targets with a positive in each label, and scores that know something of them."""
    draw = np.random.default_rng(seed)
    targets = (draw.random((rows, labels)) < draw.random(labels)).astype(np.int8)
    targets[draw.integers(0, rows, labels), np.arange(labels)] = 1
    return targets, (targets + draw.normal(0, 1.5, targets.shape)).astype(np.float32)


@pytest.mark.parametrize(("rows", "labels"), [(200, 3), (30, 7), (5, 2)])
@pytest.mark.parametrize("decimals", [6, 1, 0])  # the fewer, the more ties
def test_average_precision_is_scikit_learns(rows: int, labels: int, decimals: int) -> None:
    targets, scores = sample(rows + labels, rows, labels)
    scores = scores.round(decimals)
    expected = reference.average_precision_score(targets, scores, average="macro")
    assert multilabel.mean_average_precision(targets, scores) == pytest.approx(expected, abs=1e-12)


def test_constant_scores_give_the_share_of_positives() -> None:
    targets = np.array([[1, 0], [0, 1], [0, 1], [0, 0]])
    assert multilabel.mean_average_precision(targets, np.zeros((4, 2))) == pytest.approx((1 / 4 + 2 / 4) / 2)


def test_labels_without_a_positive_are_left_out() -> None:
    # Positives at ranks 1 and 3: (1/1 + 2/3) / 2.
    targets = np.array([[1, 0], [0, 0], [1, 0]])
    scores = np.array([[0.9, 0.5], [0.6, 0.1], [0.3, 0.8]])
    assert multilabel.mean_average_precision(targets, scores) == pytest.approx(5 / 6)
    assert multilabel.mean_average_precision(np.zeros((3, 2)), scores) == 0


@pytest.mark.parametrize(("rows", "labels"), [(200, 3), (30, 7), (2, 9)])
def test_f1_is_scikit_learns(rows: int, labels: int) -> None:
    targets, scores = sample(rows * labels, rows, labels)
    targets[:, 0] = 0  # a label that no row has
    predictions = scores > 0.5
    predictions[:, :2] &= rows < 100  # in the first sample one that is neither there nor predicted, one only there
    counts = multilabel.label_counts(targets, predictions)
    assert counts.shape == (rows, 3 * labels)
    assert counts.dtype == np.int64
    found = multilabel.label_scores(counts.sum(axis=0), labels)
    micro = reference.precision_recall_fscore_support(targets, predictions, average="micro", zero_division=0)
    expected = {
        "micro_precision": micro[0],
        "micro_recall": micro[1],
        "micro_f1": micro[2],
        "macro_f1": reference.f1_score(targets, predictions, average="macro", zero_division=0),
    }
    assert {name: float(score) for name, score in found.items()} == pytest.approx(expected, abs=1e-12)


def test_counts_are_hits_then_predicted_then_actual() -> None:
    counts = multilabel.label_counts(np.array([[1, 0, 1], [0, 0, 0]]), np.array([[1, 1, 0], [0, 0, 1]]))
    assert counts.tolist() == [[1, 0, 0, 1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1, 0, 0, 0]]


def test_scores_take_many_sums_at_once() -> None:
    sums = np.random.default_rng(3).integers(0, 9, (5, 4, 6)) + np.repeat([0, 9, 9], 2)
    together = multilabel.label_scores(sums, 2)
    for place in np.ndindex(5, 4):
        assert {name: score[place] for name, score in together.items()} == multilabel.label_scores(sums[place], 2)


def test_nothing_there_and_nothing_predicted_scores_0() -> None:
    assert set(map(float, multilabel.label_scores(np.zeros(6, dtype=np.int64), 2).values())) == {0.0}
