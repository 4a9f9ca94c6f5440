"""The tests for a shift: each gives an effect size and a p-value; only both together count as drift.

With many rows every difference is significant, with few none is, so the effect decides whether a shift matters and the
p-value whether it is there at all. Rabanser, Günnemann & Lipton (2019), "Failing loudly: an empirical study of methods
for detecting dataset shift", NeurIPS, find that univariate tests with a correction for their number, on what a model
says above all, detect shifts about as well as tests of whole distributions do. The correction is Holm's (1979), "A
simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 65-70: whatever depends on
what, the chance of any false alarm is at most the level.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.drift.said import Hits
from flows.drift.texts import Histogram, WordCounts

BLOCK_CELLS = 4_000_000  # of the random assignments that are held at a time
_MOST_WORDS = 10


@dataclass(frozen=True)
class Shift:
    """One test: how far the incoming rows are from the reference, how surely, and whether that is drift.

    ``effect`` is 0 for equal distributions, ``kind`` names it; ``p_adjusted`` counts all tests made together;
    ``reference`` and ``incoming`` describe the two sides in a few numbers.
    """

    name: str
    kind: str
    effect: float
    threshold: float
    p: float
    reference: Mapping[str, Any]
    incoming: Mapping[str, Any]
    p_adjusted: float = 1.0
    drifted: bool = False


def decided(shifts: Sequence[Shift], level: float) -> list[Shift]:
    """The tests with their corrected p-values, and which of them show drift: a large effect, and a significant one."""
    adjusted = holm([shift.p for shift in shifts])
    return [
        dataclasses.replace(shift, p_adjusted=p, drifted=p < level and shift.effect >= shift.threshold)
        for shift, p in zip(shifts, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method, in the order given."""
    order = np.argsort(p_values)
    raised = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return [float(p) for p in adjusted]


def of_values(name: str, reference: Histogram, incoming: Histogram, threshold: float) -> Shift:
    """Two distributions of numbers: the largest distance of their cumulative shares, tested by Kolmogorov and Smirnov.

    From counts by value, so that any number of rows fits; the p-value is the one of scipy's ``ks_2samp`` with
    ``method="asymp"``. With ties it comes out too large, never too small.
    """
    from scipy.stats import kstwo

    values = np.union1d(reference.values, incoming.values)
    distance = float(np.abs(_cumulative(reference, values) - _cumulative(incoming, values)).max())
    pairs = reference.rows * incoming.rows / (reference.rows + incoming.rows)
    p = float(kstwo.sf(distance, max(round(pairs), 1)))
    return Shift(name, "KS distance", distance, threshold, p, _quartiles(reference), _quartiles(incoming))


def _cumulative(histogram: Histogram, values: np.ndarray) -> np.ndarray:
    return np.asarray(np.cumsum(_counts(histogram, values)) / histogram.rows)


def _counts(histogram: Histogram, values: np.ndarray) -> np.ndarray:
    """How many rows have each of the values, all of the histogram's among them."""
    counts = np.zeros(len(values), np.int64)
    counts[np.searchsorted(values, histogram.values)] = histogram.counts
    return counts


def _quartiles(histogram: Histogram) -> dict[str, Any]:
    return {"rows": histogram.rows, "median": histogram.quantile(0.5), "p95": histogram.quantile(0.95)}


def of_accuracy(name: str, reference: Hits, incoming: Hits, threshold: float) -> Shift:
    """Two accuracies, by how much the incoming one is lower: Fisher's exact test, one-sided."""
    from scipy.stats import fisher_exact

    sides = (reference, incoming)
    table = [[side.right, side.rows - side.right] for side in sides]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    told = [{"rows": side.rows, "accuracy": side.accuracy} for side in sides]
    return Shift(name, "points less", reference.accuracy - incoming.accuracy, threshold, p, told[0], told[1])


def of_means(
    name: str, reference: Histogram, incoming: Histogram, threshold: float, resamples: int, seed: int
) -> Shift:
    """Two means, by how much the incoming one is higher: rows are assigned to the sides at random, again and again.

    Of the number of rows it needs nothing, while a t-test alarms too often where most of a few values are 0.
    """
    values = np.union1d(reference.values, incoming.values)
    counts = [_counts(side, values) for side in (reference, incoming)]
    told = [{"rows": int(side.sum()), "mean": float(side @ values / max(side.sum(), 1))} for side in counts]
    difference, p = told[1]["mean"] - told[0]["mean"], 1.0
    if all(side["rows"] for side in told):
        draw, lower, block = np.random.default_rng(seed), 0, max(1, BLOCK_CELLS // len(values))
        highest = counts[0] @ values + 1e-6  # sums of equal values may differ in their last digit
        for start in range(0, resamples, block):
            size = min(block, resamples - start)
            drawn = draw.multivariate_hypergeometric(counts[0] + counts[1], reference.rows, size, method="marginals")
            lower += int((drawn @ values <= highest).sum())
        p = (1 + lower) / (1 + resamples)
    return Shift(name, "points more", difference, threshold, p, told[0], told[1])


def of_shares(name: str, reference: Mapping[str, int], incoming: Mapping[str, int], threshold: float) -> Shift:
    """Two distributions over names: their total variation distance (the share of rows that would have to be others),
    tested by Pearson's chi-squared."""
    from scipy.stats import chi2_contingency

    names = sorted({name for side in (reference, incoming) for name, rows in side.items() if rows})
    table = np.array([[side.get(name, 0) for name in names] for side in (reference, incoming)], dtype=np.float64)
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    p = float(chi2_contingency(table, correction=False).pvalue) if len(names) > 1 else 1.0
    told = [dict(zip(names, map(float, side), strict=True)) for side in shares]
    return Shift(name, "total variation", distance, threshold, p, told[0], told[1])


def of_words(name: str, words: WordCounts, threshold: float, resamples: int, seed: int) -> Shift:
    """Two distributions over words: the Jensen-Shannon divergence in bits (Lin 1991, "Divergence measures based on the
    Shannon entropy", IEEE Transactions on Information Theory 37, 145-151), less what chance alone gives.

    The divergence of two samples of one distribution isn't 0 but grows as they shrink, and the words of a text depend
    on each other. So whole texts are assigned to the two sides at random, again and again: the mean of what that gives
    is subtracted, and the p-value is the share of assignments that give as much (Phipson & Smyth 2010, "Permutation
    p-values should never be zero", Statistical Applications in Genetics and Molecular Biology 9, article 39).
    """
    rows, reference = words.counts.shape[0], words.reference_rows
    observed = _divergences(words, np.arange(rows)[:, None] >= reference)[0]
    draw, chance = np.random.default_rng(seed), []
    block = max(1, BLOCK_CELLS // rows)
    for start in range(0, resamples, block):
        ranks = draw.random((rows, min(block, resamples - start)), dtype=np.float32).argpartition(reference, axis=0)
        chosen = np.ones(ranks.shape, dtype=bool)
        np.put_along_axis(chosen, ranks[:reference], False, axis=0)
        chance.append(_divergences(words, chosen))
    by_chance = np.concatenate(chance)
    p = float((1 + np.sum(by_chance >= observed)) / (1 + resamples))
    effect = float(max(observed - by_chance.mean(), 0.0))
    more, fewer = _most_changed(words)
    told = [{"rows": reference, "more here": fewer}, {"rows": rows - reference, "more here": more}]
    return Shift(name, "JS divergence, bits", effect, threshold, p, told[0], told[1])


def _divergences(words: WordCounts, incoming: np.ndarray) -> np.ndarray:
    """For each column of ``incoming``, booleans of shape (rows, assignments), the divergence of its two sides."""
    from scipy.spatial.distance import jensenshannon

    there = words.counts.T @ incoming.astype(np.float64)
    here = words.counts.sum(axis=0)[:, None] - there
    with np.errstate(invalid="ignore"):  # a side without any word
        return np.asarray(np.square(np.nan_to_num(jensenshannon(here, there, base=2, axis=0))))


def _most_changed(words: WordCounts) -> tuple[list[str], list[str]]:
    """The words that are more, and less, frequent among the incoming texts, the greatest share of the divergence
    first."""
    counts = words.counts[:, : len(words.words)]
    sides = (counts[: words.reference_rows], counts[words.reference_rows :])
    totals = [np.asarray(side.sum(axis=0), dtype=np.float64) for side in sides]
    before, after = (side / max(side.sum(), 1.0) for side in totals)
    middle = np.maximum((before + after) / 2, 1e-300)
    part = [np.where(side > 0, side * np.log2(np.maximum(side, 1e-300) / middle), 0.0) for side in (before, after)]
    order = np.argsort(-(part[0] + part[1]), kind="stable")
    named = [(words.words[index], after[index] > before[index]) for index in order if after[index] != before[index]]
    more, fewer = ([word for word, rose in named if rose == wanted][:_MOST_WORDS] for wanted in (True, False))
    return more, fewer
