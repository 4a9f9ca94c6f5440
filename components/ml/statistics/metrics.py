"""Quality of predictions: accuracy, macro scores, agreement and calibration, in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MacroScores:
    """Unweighted means over classes, in [0, 1]; scalars, or arrays when the counts held several samples."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


@dataclass(frozen=True)
class Reliability:
    """Rows by confidence: arrays of shape (bins,); the means of an empty bin are NaN."""

    confidence: np.ndarray
    accuracy: np.ndarray
    rows: np.ndarray


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64, over the last axis; safe for large logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponents = np.exp(shifted)
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of the rows predicted right; both arrays have shape (rows,), at least one row."""
    return float(np.mean(labels == predictions))


def agreement(predictions: np.ndarray, others: np.ndarray) -> float:
    """Share of the rows on which two models say the same, right or wrong."""
    return float(np.mean(predictions == others))


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Rows by actual (first axis) and predicted class: int64 of shape (classes, classes)."""
    cells = labels.astype(np.int64) * classes + predictions
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def macro_scores(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> MacroScores:
    """Macro precision, recall and F1 from counts by class.

    Follows scikit-learn's ``average="macro", zero_division=0``: the mean runs over the classes that occur
    among the labels or the predictions, and a score without a denominator counts 0.

    Args:
        hits: rows of a class predicted right, of shape (..., classes).
        predicted: rows predicted as the class, same shape.
        actual: rows of the class, same shape.
    """
    present = (predicted + actual) > 0
    among = np.maximum(present.sum(axis=-1), 1)

    def mean(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return np.asarray((numerator / np.maximum(denominator, 1)).sum(axis=-1) / among)

    return MacroScores(mean(hits, predicted), mean(hits, actual), mean(2 * hits, predicted + actual))


def macro_scores_of(confusion: np.ndarray) -> MacroScores:
    """Macro precision, recall and F1 of a confusion matrix of shape (classes, classes)."""
    return macro_scores(confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1))


def class_scores(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, macro scores, MCC and, of two classes, the second's F1, from counts by class, each of shape (...).

    Args:
        hits: rows of a class predicted right, of shape (..., classes).
        predicted: rows predicted as the class, same shape.
        actual: rows of the class, same shape.
    """
    macro = macro_scores(hits, predicted, actual)
    found: dict[str, np.ndarray] = {
        "accuracy": hits.sum(axis=-1) / actual.sum(axis=-1),
        "macro_precision": macro.precision,
        "macro_recall": macro.recall,
        "macro_f1": macro.f1,
    }
    if hits.shape[-1] == 2:
        either = predicted[..., 1] + actual[..., 1]
        found["f1"] = 2 * hits[..., 1] / np.maximum(either, 1)
    return found | {"mcc": _correlation(hits.sum(axis=-1), predicted, actual)}


def _correlation(right: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Matthews' correlation coefficient (Gorodkin 2004), of shape (...); 0 where it isn't defined.

    Args:
        right: rows predicted right, of shape (...).
        predicted: rows by predicted class, of shape (..., classes).
        actual: rows by actual class, of shape (..., classes).
    """
    predicted, actual = predicted.astype(np.float64), actual.astype(np.float64)
    rows = actual.sum(axis=-1)
    spread = np.sqrt(rows**2 - (actual**2).sum(axis=-1)) * np.sqrt(rows**2 - (predicted**2).sum(axis=-1))
    shared = rows * right - (actual * predicted).sum(axis=-1)
    return np.asarray(np.where(spread > 0, shared / np.where(spread > 0, spread, 1), 0.0))


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and macro F1 of the labelled rows; ``logits`` has shape (rows, classes), ``labels`` (rows,)."""
    known = labels >= 0
    predictions, actual = logits[known].argmax(axis=-1), labels[known]
    scores = macro_scores_of(confusion_matrix(actual, predictions, logits.shape[-1]))
    return {"accuracy": accuracy(actual, predictions), "macro_f1": float(scores.f1)}


def reliability_curve(confidence: np.ndarray, right: np.ndarray, bins: int) -> Reliability:
    """Mean confidence and accuracy in bins of equal width; bin m holds ((m-1)/bins, m/bins].

    Args:
        confidence: the largest probability of each row, of shape (rows,).
        right: whether the prediction was right, of shape (rows,).
        bins: how many bins.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    place = np.searchsorted(edges, confidence, side="left")
    rows = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, weights=confidence, minlength=bins) / rows
        mean_accuracy = np.bincount(place, weights=right.astype(np.float64), minlength=bins) / rows
    return Reliability(mean_confidence, mean_accuracy, rows)


def expected_calibration_error(curve: Reliability) -> float:
    """ECE in [0, 1] (Guo et al. 2017, equation 3): the bins' gaps of accuracy and confidence, weighted by rows."""
    filled = curve.rows > 0
    gaps = np.abs(curve.accuracy[filled] - curve.confidence[filled])
    return float((gaps * curve.rows[filled]).sum() / curve.rows.sum())
