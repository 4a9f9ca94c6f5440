"""Bootstrap over documents, and over seeds: rows of one document are alike, so whole documents are drawn.

Percentile intervals (Efron & Tibshirani 1993, chapter 13) of a cluster bootstrap. Every model is scored on the same
draws, so differences between models are paired. Where models were trained with several seeds, each resample draws
seeds too (crossed with the documents, since every seed is scored on every document).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse

Counts = Any
"""Numbers of shape (rows, k), as an array or a sparse array of scipy."""
# Draws are made in blocks of at most this many weights (32 MB), however many documents there are.
BLOCK_WEIGHTS = 4_000_000


def resample_sums(
    documents: np.ndarray, counts: Sequence[Counts], resamples: int, seed: int, block_weights: int = BLOCK_WEIGHTS
) -> Iterator[np.ndarray]:
    """The sums of every model's counts on ``resamples`` draws of as many documents as there are, with replacement.

    Sums of integers are exact; those of other numbers are added in the order of the documents. So neither the blocks
    nor the number of threads changes a bit of the result.

    Args:
        documents: the document of each row, as any integers, of shape (rows,).
        counts: for each model the numbers of each row, of shape (rows, k), the same k for all.
        resamples: how many draws.
        seed: what the draws depend on.
        block_weights: how many weights of documents are in memory at a time.

    Yields:
        some resamples at a time, of shape (models, these resamples, k).
    """
    names, columns = np.unique(documents, return_inverse=True)
    by_document = sparse.csr_array((np.ones(len(columns), dtype=np.int64), (columns, np.arange(len(columns)))))
    together = sparse.hstack([sparse.csr_array(each) for each in counts], format="csr")
    matrix = sparse.csr_array((by_document @ together).T)
    for weights in _weights(len(names), resamples, seed, block_weights):
        yield (matrix @ weights).reshape(len(counts), counts[0].shape[1], -1).transpose(0, 2, 1)


def resample_scores(
    documents: np.ndarray,
    counts: Sequence[Counts],
    score: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    block_weights: int = BLOCK_WEIGHTS,
) -> np.ndarray:
    """A score of every model on the draws of :func:`resample_sums`.

    Args:
        score: from sums of shape (models, some resamples, k) to the score of each, of shape (models, some resamples).

    Returns:
        float64 of shape (models, resamples).
    """
    blocks = [score(sums) for sums in resample_sums(documents, counts, resamples, seed, block_weights)]
    return np.concatenate(blocks, axis=1).astype(np.float64)


def resample_accuracy(
    documents: np.ndarray, right: Sequence[np.ndarray], resamples: int, seed: int, block_weights: int = BLOCK_WEIGHTS
) -> np.ndarray:
    """The accuracy of many models on the draws of ``resample_scores`` with this seed; holds a number a document.

    Args:
        documents: the document of each row, as any integers, of shape (rows,).
        right: for each model, whether it predicted each row right: booleans of shape (rows,).

    Returns:
        float64 of shape (models, resamples), equal to the bit to the accuracies of ``resample_scores``.
    """
    _, columns = np.unique(documents, return_inverse=True)
    count = int(columns.max()) + 1
    lines = [sparse.csr_array(np.bincount(columns, minlength=count)[None])]
    lines += [sparse.csr_array(np.bincount(columns[hits], minlength=count)[None]) for hits in right]
    matrix = sparse.vstack(lines, format="csr")
    sums = np.concatenate([matrix @ weights for weights in _weights(count, resamples, seed, block_weights)], axis=1)
    return np.asarray(sums[1:] / sums[0])


def mean_of_drawn_seeds(values: np.ndarray, seed: int) -> np.ndarray:
    """In each resample the mean over as many seeds as there are, drawn with replacement.

    Of few seeds the spread comes out too narrow, as any bootstrap's of a few values: by sqrt(1 - 1 / seeds) where
    seeds are all that varies.

    Args:
        values: of shape (seeds, resamples): each seed's value on each draw of documents.
        seed: what the draws of seeds depend on.

    Returns:
        float64 of shape (resamples,); the values themselves where there is one seed.
    """
    seeds, resamples = values.shape
    drawn = np.random.Generator(np.random.PCG64([seed, seeds])).integers(0, seeds, (seeds, resamples))
    return np.asarray(np.take_along_axis(values, drawn, axis=0).mean(axis=0))


def _weights(documents: int, resamples: int, seed: int, block_weights: int) -> Iterator[np.ndarray]:
    """How often each document is drawn: int64 blocks of shape (documents, some resamples)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    block = max(1, block_weights // documents)
    for start in range(0, resamples, block):
        drawn = [generator.integers(0, documents, documents) for _ in range(min(block, resamples - start))]
        yield np.stack([np.bincount(one, minlength=documents) for one in drawn], axis=1)


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The central ``confidence`` share of the resampled values: (low, high)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
