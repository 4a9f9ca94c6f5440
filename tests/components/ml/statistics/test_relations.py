"""The official score of SemEval-2010 Task 8 against numbers worked out by hand from its rules."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from components.ml.statistics import metrics
from components.ml.statistics.relations import directed_macro_f1

CAUSE, CAUSED, WHOLE, PART, TOPIC, OTHER = LABELS = [
    "Cause-Effect(e1,e2)",
    "Cause-Effect(e2,e1)",
    "Component-Whole(e1,e2)",
    "Component-Whole(e2,e1)",
    "Message-Topic(e1,e2)",
    "Other",
]
# (actual, predicted)
ROWS = [
    (CAUSE, CAUSE),
    (CAUSE, CAUSED),  # a wrong direction
    (CAUSED, CAUSED),
    (CAUSED, WHOLE),
    (WHOLE, WHOLE),
    (WHOLE, OTHER),
    (PART, WHOLE),  # a wrong direction
    (TOPIC, OTHER),
    (OTHER, OTHER),
    (OTHER, CAUSE),
]


def counts(rows: list[tuple[str, str]], labels: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, predicted and actual rows by label."""
    actual, predicted = (np.array([labels.index(row[side]) for row in rows]) for side in (0, 1))
    confusion = metrics.confusion_matrix(actual, predicted, len(labels))
    return confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)


def test_directions_are_put_together_and_other_is_left_out() -> None:
    # Cause-Effect: 2 hits, 4 predicted (one in the wrong direction, one of Other's), 4 actual: P = R = F1 = 1/2.
    # Component-Whole: 1 hit, 3 predicted, 3 actual: P = R = F1 = 1/3. Message-Topic: never predicted, 0.
    assert float(directed_macro_f1(*counts(ROWS, LABELS), LABELS)) == pytest.approx((1 / 2 + 1 / 3 + 0) / 3, abs=1e-12)


def test_every_direction_wrong_scores_0_and_every_one_right_1() -> None:
    turned = [(CAUSE, CAUSED), (CAUSED, CAUSE), (PART, WHOLE)]
    assert float(directed_macro_f1(*counts(turned, LABELS), LABELS)) == 0
    right = [(label, label) for label in LABELS]
    assert float(directed_macro_f1(*counts(right, LABELS), LABELS)) == 1


def test_the_mean_runs_over_relations_among_the_actual_rows() -> None:
    # Message-Topic is predicted once and never there: it costs Cause-Effect its recall and isn't in the mean.
    rows = [(CAUSE, CAUSE), (CAUSE, TOPIC), (OTHER, OTHER)]
    assert float(directed_macro_f1(*counts(rows, LABELS), LABELS)) == pytest.approx(2 / 3)
    assert float(directed_macro_f1(*counts([(OTHER, CAUSE)], LABELS), LABELS)) == 0


def test_a_label_without_a_direction_among_directed_ones_is_left_out() -> None:
    labels = [CAUSE, CAUSED, "None"]
    rows = [(CAUSE, CAUSE), (CAUSED, "None"), ("None", "None")]
    assert float(directed_macro_f1(*counts(rows, labels), labels)) == pytest.approx(2 / 3)


def test_without_directions_it_is_the_macro_f1_of_all_but_other() -> None:
    labels = ["Cause", "Other", "Part", "Topic"]
    draw = np.random.default_rng(5)
    actual, predicted = draw.integers(0, 4, (2, 80))
    confusion = metrics.confusion_matrix(actual, predicted, 4)
    found = directed_macro_f1(confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1), labels)
    expected = f1_score(actual, predicted, labels=[0, 2, 3], average="macro", zero_division=0)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_many_samples_at_once_give_what_each_gives() -> None:
    draw = np.random.default_rng(6)
    hits = draw.integers(0, 4, (3, 7, len(LABELS)))
    predicted, actual = hits + draw.integers(0, 4, (2, *hits.shape))
    together = directed_macro_f1(hits, predicted, actual, LABELS)
    assert together.shape == (3, 7)
    for place in np.ndindex(3, 7):
        assert together[place] == float(directed_macro_f1(hits[place], predicted[place], actual[place], LABELS))
