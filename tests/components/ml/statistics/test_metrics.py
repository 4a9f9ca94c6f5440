"""Metrics against scikit-learn's and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from components.ml.statistics import metrics


def sample(seed: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels, predictions = generator.integers(0, classes, (2, rows)).astype(np.int32)
    return labels, np.where(generator.random(rows) < 0.5, labels, predictions).astype(np.int32)


EDGE_CASES = [
    (np.array([0, 0, 1]), np.array([0, 0, 0])),  # a class never predicted
    (np.array([0, 0, 0]), np.array([0, 2, 0])),  # a class predicted that no row has
    (np.array([1]), np.array([1])),
    (np.array([1]), np.array([0])),
]


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [sample(seed, rows, classes) for seed, rows, classes in [(1, 200, 2), (2, 37, 5), (3, 6, 9)]] + EDGE_CASES,
)
def test_scores_equal_scikit_learns(labels: np.ndarray, predictions: np.ndarray) -> None:
    classes = 10
    confusion = metrics.confusion_matrix(labels, predictions, classes)
    found = metrics.macro_scores_of(confusion)
    expected = reference.precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
    assert [float(found.precision), float(found.recall), float(found.f1)] == pytest.approx(expected[:3])
    assert metrics.accuracy(labels, predictions) == pytest.approx(reference.accuracy_score(labels, predictions))
    assert (confusion == reference.confusion_matrix(labels, predictions, labels=range(classes))).all()


def test_macro_scores_take_many_samples_at_once() -> None:
    confusions = [metrics.confusion_matrix(*sample(seed, 50, 3), 3) for seed in range(4)]
    hits, predicted, actual = (
        np.stack([count(confusion) for confusion in confusions])
        for count in (np.diagonal, lambda c: c.sum(axis=0), lambda c: c.sum(axis=1))
    )
    together = metrics.macro_scores(hits, predicted, actual).f1
    assert together.tolist() == [float(metrics.macro_scores_of(confusion).f1) for confusion in confusions]


def test_softmax_sums_to_one_and_survives_large_logits() -> None:
    found = metrics.softmax(np.array([[1000.0, 999.0], [-1000.0, 0.0]], dtype=np.float32))
    assert found.sum(axis=-1) == pytest.approx([1.0, 1.0])
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_calibration_error_equals_the_one_worked_out_by_hand() -> None:
    # Bins of width 0.5: (0, 0.5] holds 0.4 right and 0.5 wrong, (0.5, 1] holds 0.7 right, 0.9 right, 0.8 wrong.
    confidence, right = np.array([0.4, 0.5, 0.7, 0.9, 0.8]), np.array([True, False, True, True, False])
    curve = metrics.reliability_curve(confidence, right, bins=2)
    assert curve.rows.tolist() == [2, 3]
    assert curve.confidence == pytest.approx([0.45, 0.8])
    assert curve.accuracy == pytest.approx([0.5, 2 / 3])
    expected = 2 / 5 * abs(0.5 - 0.45) + 3 / 5 * abs(2 / 3 - 0.8)
    assert metrics.expected_calibration_error(curve) == pytest.approx(expected)


def test_empty_bins_weigh_nothing_and_certain_right_predictions_are_calibrated() -> None:
    curve = metrics.reliability_curve(np.ones(4), np.ones(4, dtype=bool), bins=15)
    assert curve.rows.tolist() == [0] * 14 + [4]
    assert np.isnan(curve.accuracy[:14]).all()
    assert metrics.expected_calibration_error(curve) == 0


def test_agreement_counts_rows_that_both_models_get_wrong_alike() -> None:
    assert metrics.agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    return metrics.class_scores(confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_correlation_and_binary_f1_are_the_references(classes: int) -> None:
    draw = np.random.default_rng(classes)
    for rows in (1, 2, 50, 2000):
        actual = draw.integers(0, classes, rows)
        predicted = np.where(draw.random(rows) < 0.6, actual, draw.integers(0, classes, rows))
        found = class_scores(metrics.confusion_matrix(actual, predicted, classes))
        assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(actual, predicted), abs=1e-9)
        assert found["accuracy"] == reference.accuracy_score(actual, predicted)
        if classes == 2:
            expected = reference.f1_score(actual, predicted, zero_division=0)
            assert found["f1"] == pytest.approx(expected, abs=1e-9)


def test_one_class_alone_has_no_correlation() -> None:
    assert class_scores(np.array([[5, 0], [0, 0]]))["mcc"] == 0.0
    assert class_scores(np.array([[3, 0], [2, 0]]))["mcc"] == 0.0
