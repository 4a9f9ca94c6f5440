"""Bootstrap over documents, and over seeds: rows of one document are alike, so whole documents are drawn.

Percentile intervals (Efron & Tibshirani 1993, chapter 13) of a cluster bootstrap. Every model is scored on the same
draws, so differences between models are paired. Where models were trained with several seeds, each resample draws
seeds too (crossed with the documents, since every seed is scored on every document).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from components.ml.statistics.metrics import macro_scores

# Draws are made in blocks of at most this many weights (32 MB), however many documents there are.
BLOCK_WEIGHTS = 4_000_000


@dataclass(frozen=True)
class DocumentCounts:
    """All that accuracy and macro F1 need to know of each document, as a sparse integer matrix.

    ``matrix`` has shape ((1 + 2 * models) * classes, documents): first the rows of each actual class, then for each
    model its right rows by class and its predictions by class. At most ``1 + 2 * models`` cells a row are filled.
    """

    matrix: sparse.csr_array
    models: int
    classes: int

    @property
    def documents(self) -> int:
        """How many documents there are to draw from."""
        return int(self.matrix.shape[1])


@dataclass(frozen=True)
class Draws:
    """Scores of every model on every resample: float64 arrays of shape (models, resamples)."""

    accuracy: np.ndarray
    macro_f1: np.ndarray


def count_documents(documents: np.ndarray, labels: np.ndarray, predictions: np.ndarray, classes: int) -> DocumentCounts:
    """Count each document's rows.

    Args:
        documents: the document of each row, as any integers, of shape (rows,).
        labels: actual classes, of shape (rows,).
        predictions: predicted classes, of shape (models, rows).
        classes: how many classes there are.
    """
    _, columns = np.unique(documents, return_inverse=True)
    lines, places = [labels], [columns]
    for model, predicted in enumerate(predictions):
        right = predicted == labels
        first = (1 + 2 * model) * classes
        lines += [first + labels[right], first + classes + predicted]
        places += [columns[right], columns]
    line, place = np.concatenate(lines), np.concatenate(places)
    shape = ((1 + 2 * len(predictions)) * classes, int(columns.max()) + 1)
    matrix = sparse.coo_array((np.ones(len(line), dtype=np.int64), (line, place)), shape=shape).tocsr()
    return DocumentCounts(matrix, len(predictions), classes)


def resample(counts: DocumentCounts, resamples: int, seed: int, block_weights: int = BLOCK_WEIGHTS) -> Draws:
    """Score every model on ``resamples`` draws of as many documents as there are, with replacement.

    Counts are integers, so neither the blocks nor the number of threads changes a bit of the result.
    """
    accuracy, macro_f1 = [], []
    for weights in _weights(counts.documents, resamples, seed, block_weights):
        blocks = (counts.matrix @ weights).reshape(1 + 2 * counts.models, counts.classes, -1).transpose(0, 2, 1)
        actual, hits, predicted = blocks[0], blocks[1::2], blocks[2::2]
        accuracy.append(hits.sum(axis=-1) / actual.sum(axis=-1))
        macro_f1.append(macro_scores(hits, predicted, actual).f1)
    return Draws(np.concatenate(accuracy, axis=1), np.concatenate(macro_f1, axis=1))


def resample_accuracy(
    documents: np.ndarray, right: Sequence[np.ndarray], resamples: int, seed: int, block_weights: int = BLOCK_WEIGHTS
) -> np.ndarray:
    """The accuracy of many models on the draws that ``resample`` makes with this seed; holds a number a document.

    Args:
        documents: the document of each row, as any integers, of shape (rows,).
        right: for each model, whether it predicted each row right: booleans of shape (rows,).

    Returns:
        float64 of shape (models, resamples), equal to the bit to the accuracies of ``resample``.
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
