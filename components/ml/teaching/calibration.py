"""Makes probabilities mean what they say: temperature scaling fitted on validation rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

from components.ml.statistics.metrics import expected_calibration_error, reliability_curve, softmax

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of the temperature: where every row is right, the likelihood grows for ever as it falls to 0."""
BINS = 15


@dataclass(frozen=True)
class Calibration:
    """A temperature, and the validation rows' mean negative log-likelihood and calibration error at 1 and at it.

    Without rows the temperature is 1 and the measurements are None.
    """

    temperature: float
    nll_before: float | None
    nll_after: float | None
    ece_before: float | None
    ece_after: float | None
    rows: int

    def save(self, path: Path) -> None:
        """Write the values as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def describe(self) -> str:
        """One line for the log."""
        if self.nll_before is None:
            return "calibration: temperature 1, as there are no rows to fit it on"
        bound = " (at its bound)" if self.temperature in (LOWEST, HIGHEST) else ""
        return (
            f"calibration: temperature {self.temperature:.3f}{bound} on {self.rows:,} validation rows; "
            f"NLL {self.nll_before:.4f} -> {self.nll_after:.4f}, ECE {self.ece_before:.4f} -> {self.ece_after:.4f}"
        )


UNCALIBRATED = Calibration(1.0, None, None, None, None, 0)


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit one temperature by maximum likelihood (Guo et al. 2017, section 4.2).

    The loss is convex in 1/T, so its slope has one zero, which is found by Brent's method (scipy): nothing is
    drawn at random. The temperature stays within ``LOWEST`` and ``HIGHEST``.

    Args:
        logits: finite, of shape (rows, classes).
        labels: true classes, of shape (rows,).
    """
    if not len(labels):
        return UNCALIBRATED
    wide = logits.astype(np.float64)
    temperature = _best_temperature(wide, labels)
    before, after = (_measure(wide / each, labels) for each in (1.0, temperature))
    return Calibration(temperature, before[0], after[0], before[1], after[1], len(labels))


def _best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    above_truth = logits - logits[np.arange(len(labels)), labels][:, None]  # so that no rounding turns a sign

    def slope(inverse: float) -> float:
        """Of the mean negative log-likelihood, as a function of 1/T."""
        return float((softmax(above_truth * inverse) * above_truth).sum(axis=-1).mean())

    if slope(1.0) == 0:  # such as rows whose logits are all alike: no temperature is better
        return 1.0
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    if slope(1 / HIGHEST) >= 0:
        return HIGHEST
    return 1.0 / float(brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-12, rtol=1e-12))


def _measure(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean negative log-likelihood and expected calibration error."""
    likelihoods = log_softmax(logits, axis=-1)
    right = likelihoods.argmax(axis=-1) == labels
    curve = reliability_curve(np.exp(likelihoods.max(axis=-1)).clip(max=1.0), right, BINS)
    return float(-likelihoods[np.arange(len(labels)), labels].mean()), expected_calibration_error(curve)
