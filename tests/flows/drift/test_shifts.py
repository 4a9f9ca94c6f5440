"""The tests for a shift: their figures are scipy's, false alarms are as rare as stated, and shifts are found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from flows.drift import shifts
from flows.drift.said import Hits
from flows.drift.texts import Histogram, WordCounts


def histogram(values: np.ndarray) -> Histogram:
    found, counts = np.unique(values, return_counts=True)
    return Histogram(found, counts)


def shares(values: np.ndarray) -> dict[str, int]:
    return {str(name): int(count) for name, count in zip(*np.unique(values, return_counts=True), strict=True)}


def words(before: np.ndarray, after: np.ndarray) -> WordCounts:
    counts = np.concatenate([before, after])
    names = [f"w{index}" for index in range(counts.shape[1] - 1)]
    return WordCounts(names, sparse.csr_array(counts.astype(np.float64)), len(before))


def test_holm_is_the_textbooks() -> None:
    assert shifts.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert shifts.holm([0.9, 0.8]) == [1.0, 1.0]
    assert shifts.holm([]) == []


def test_distances_and_p_values_from_counts_are_those_of_scipy_from_rows() -> None:
    draw = np.random.default_rng(0)
    before, after = draw.poisson(20, 700), draw.poisson(22, 300)
    found = shifts.of_values("length", histogram(before), histogram(after), 0.1)
    expected = stats.ks_2samp(before, after, method="asymp")
    assert (found.effect, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    higher = shifts.of_means("unseen", histogram(before), histogram(after[:60]), 0.1, 20_000, 13)
    assert higher.effect == pytest.approx(after[:60].mean() - before.mean())
    permuted = stats.ttest_ind(after[:60], before, alternative="greater", method=stats.PermutationMethod(20_000, rng=1))
    assert 0.001 < higher.p == pytest.approx(permuted.pvalue, rel=0.2)
    labels = shifts.of_shares("labels", {"正": 60, "负": 40, "never": 0}, {"正": 80, "new": 20}, 0.1)
    assert labels.effect == pytest.approx(0.4)
    table = [[60, 40, 0], [80, 0, 20]]
    assert labels.p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_a_difference_must_be_both_large_and_significant() -> None:
    draw = np.random.default_rng(1)
    many = [histogram(draw.poisson(mean, 400_000)) for mean in (20, 20.2)]
    tiny = shifts.of_values("length", many[0], many[1], 0.1)
    assert tiny.p < 1e-9
    few = [histogram(draw.poisson(20, 12)) for _ in range(2)]
    noisy = shifts.of_values("length", few[0], few[1], 0.1)
    assert noisy.effect >= 0.1
    assert not any(shift.drifted for shift in shifts.decided([tiny, noisy], 0.01))
    assert shifts.decided([shifts.of_values("length", many[0], histogram(draw.poisson(30, 500)), 0.1)], 0.01)[0].drifted


def test_a_few_texts_most_of_which_have_no_unseen_word_alarm_no_more_often_than_stated() -> None:
    draw = np.random.default_rng(3)

    def shares(rows: int) -> Histogram:
        return histogram(np.rint(1000 * np.where(draw.random(rows) < 0.9, 0, draw.beta(1, 8, rows))) / 1000)

    p_values = [shifts.of_means("unseen", shares(10), shares(300), 0.0, 199, 13).p for _ in range(400)]
    assert sum(p < 0.05 for p in p_values) <= 32  # 20, and no more than its binomial error above; Welch's t: 162


def test_no_rows_with_words_and_one_label_only_are_no_drift() -> None:
    none, some = (histogram(np.array(values)) for values in ([], [0.3, 0.4]))
    assert shifts.of_means("unseen", none, some, 0.1, 99, 13).p == 1.0
    assert shifts.of_shares("labels", {"正": 3}, {"正": 9}, 0.1).p == 1.0
    nothing = words(np.zeros((3, 2)), np.zeros((4, 2)))
    assert shifts.of_words("words", nothing, 0.02, 99, 13).effect == 0.0


def test_an_accuracy_that_fell_is_told_from_one_that_rose() -> None:
    fell, rose = (
        shifts.decided([shifts.of_accuracy("accuracy", Hits(880, 1000), Hits(right, 300), 0.03)], 0.01)[0]
        for right in (225, 295)
    )
    assert fell.drifted
    assert not rose.drifted
    assert Hits(225, 300).interval(0.95) == pytest.approx((0.698, 0.796), abs=1e-3)


def batch(draw: np.random.Generator, rows: int, moved: float) -> dict[str, np.ndarray]:
    """What is measured of a batch; ``moved`` shifts all of it."""
    vocabulary = np.linspace(1, 3, 20) ** (1 - 2 * moved)
    return {
        "length": draw.poisson(20 * (1 + 0.3 * moved), rows),
        "unseen": np.rint(1000 * draw.beta(2 + 3 * moved, 40, rows)) / 1000,
        "labels": draw.random(rows) < 0.6 + 0.2 * moved,
        "confidence": np.rint(1000 * draw.beta(20 - 10 * moved, 2, rows)),
        "words": draw.multinomial(15, vocabulary / vocabulary.sum(), rows),
    }


def compared(draw: np.random.Generator, moved: float, level: float, thresholds: bool) -> list[str]:
    """Which tests alarm for a new batch of 250 rows against 500."""
    one, other = batch(draw, 500, 0.0), batch(draw, 250, moved)
    limits = (0.1, 0.02, 0.1, 0.1, 0.02) if thresholds else (0.0,) * 5
    made = [
        shifts.of_values("length", histogram(one["length"]), histogram(other["length"]), limits[0]),
        shifts.of_means("unseen", histogram(one["unseen"]), histogram(other["unseen"]), limits[1], 199, 13),
        shifts.of_shares("labels", shares(one["labels"]), shares(other["labels"]), limits[2]),
        shifts.of_values("confidence", histogram(one["confidence"]), histogram(other["confidence"]), limits[3]),
        shifts.of_words("words", words(one["words"], other["words"]), limits[4], 199, 13),
    ]
    return [shift.name for shift in shifts.decided(made, level) if shift.drifted]


def test_batches_of_the_same_distribution_alarm_no_more_often_than_stated_and_others_do() -> None:
    draw = np.random.default_rng(7)
    by_chance = [compared(draw, 0.0, 0.1, thresholds=False) for _ in range(300)]
    alarms = sum(map(bool, by_chance))
    assert 10 <= alarms <= 45  # of 300 at a level of 10%: 30, and no more than its binomial error above
    assert sum(bool(compared(draw, 0.0, 0.1, thresholds=True)) for _ in range(100)) <= 10
    found = [compared(draw, 1.0, 0.1, thresholds=True) for _ in range(20)]
    for name in ("length", "unseen", "labels", "confidence", "words"):
        assert sum(name in names for names in found) >= 18, name
