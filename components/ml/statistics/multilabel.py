"""Scores of rows that have any number of labels: average precision, and F1 over labels."""

from __future__ import annotations

import numpy as np


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Mean over labels of the average precision, in [0, 1]; rows of one score share one threshold.

    scikit-learn's ``average_precision_score(average="macro")`` where every label has a positive. A label without one
    is left out of the mean; scikit-learn counts it 0, with a warning. 0 where no label has one.

    Args:
        targets: 0 or 1, of shape (rows, labels).
        scores: larger where the label is likelier, same shape.
    """
    known = np.flatnonzero(targets.any(axis=0))
    actual, ranked = targets.astype(np.int64), scores.astype(np.float64)
    each = [_average_precision(actual[:, label], ranked[:, label]) for label in known]
    return float(np.mean(each)) if each else 0.0


def label_counts(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Each row's hits by label, then predicted, then actual: int64 of shape (rows, 3 * labels).

    Args:
        targets: 0 or 1, of shape (rows, labels).
        predictions: 0 or 1, same shape.
    """
    actual, predicted = targets.astype(np.int64), predictions.astype(np.int64)
    return np.concatenate([actual * predicted, predicted, actual], axis=1)


def label_scores(sums: np.ndarray, labels: int) -> dict[str, np.ndarray]:
    """``micro_precision``, ``micro_recall``, ``micro_f1`` and ``macro_f1``, each of shape (...).

    The macro average runs over all labels, as scikit-learn's ``f1_score(average="macro", zero_division=0)``; a score
    without a denominator is 0.

    Args:
        sums: sums over rows of ``label_counts``, of shape (..., 3 * labels).
        labels: how many labels there are, at least one.
    """
    hits, predicted, actual = (sums[..., first : first + labels] for first in (0, labels, 2 * labels))
    right, guessed, there = (counts.sum(axis=-1) for counts in (hits, predicted, actual))
    return {
        "micro_precision": np.asarray(right / np.maximum(guessed, 1)),
        "micro_recall": np.asarray(right / np.maximum(there, 1)),
        "micro_f1": np.asarray(2 * right / np.maximum(guessed + there, 1)),
        "macro_f1": np.asarray((2 * hits / np.maximum(predicted + actual, 1)).mean(axis=-1)),
    }


def _average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Precision at each threshold, weighted by the recall gained there; at least one positive."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of the rows of each score
    hits = np.cumsum(targets[order])[last]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (last + 1)).sum() / hits[-1])
