"""Temperature scaling: it recovers what was done to the logits, and never makes the likelihood worse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from components.ml.teaching.calibration import HIGHEST, LOWEST, UNCALIBRATED, calibrate


def drawn(rows: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the probabilities that they have at ``temperature``."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 3, (rows, classes))
    noise = draw.gumbel(size=logits.shape)
    return logits.astype(np.float32), (logits / temperature + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_a_known_temperature_is_found_again(temperature: float, classes: int) -> None:
    assert calibrate(*drawn(20_000, classes, temperature)).temperature == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("seed", range(20))
def test_the_likelihood_never_gets_worse_and_is_the_best_there_is(seed: int) -> None:
    logits, labels = drawn(40, 3, 1.5, seed)
    found = calibrate(logits, labels)
    assert found.nll_after is not None
    assert found.nll_before is not None
    assert found.nll_after <= found.nll_before + 1e-12

    def nll(temperature: float) -> float:
        return float(-log_softmax(logits.astype(float) / temperature, axis=1)[np.arange(40), labels].mean())

    best = minimize_scalar(nll, bounds=(LOWEST, HIGHEST), method="bounded").fun
    assert found.nll_after <= best + 1e-9
    assert nll(found.temperature) == pytest.approx(found.nll_after)


def test_overconfident_logits_get_a_smaller_calibration_error() -> None:
    logits, labels = drawn(5000, 4, 1.0)
    found = calibrate(logits * 5, labels)
    assert found.temperature == pytest.approx(5, rel=0.1)
    assert found.ece_before is not None
    assert found.ece_after is not None
    assert found.ece_after < found.ece_before / 3


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_rows_that_are_all_right_take_the_lowest_temperature(scale: float) -> None:
    logits = np.array([[2.0, 0.1], [0.3, 3.0], [1.0, -1.0]]) * scale
    assert calibrate(logits, logits.argmax(axis=1)).temperature == LOWEST


def test_rows_that_are_all_wrong_take_the_highest_temperature() -> None:
    logits = np.array([[2.0, 0.1], [0.3, 3.0]])
    assert calibrate(logits, logits.argmin(axis=1)).temperature == HIGHEST


def test_rows_of_one_class_and_rows_without_opinion_are_no_trouble() -> None:
    logits, _ = drawn(50, 3, 1.0)
    assert LOWEST <= calibrate(logits, np.zeros(50, np.int64)).temperature <= HIGHEST
    assert calibrate(np.ones((5, 3)), np.zeros(5, np.int64)).temperature == 1.0


def test_without_rows_nothing_is_calibrated_and_that_is_said(tmp_path: Path) -> None:
    found = calibrate(np.zeros((0, 2)), np.zeros(0, np.int64))
    assert found == UNCALIBRATED
    assert "no rows" in found.describe()
    found.save(tmp_path / "calibration.json")
    saved = json.loads((tmp_path / "calibration.json").read_text())
    assert saved["temperature"] == 1.0
    assert saved["nll_before"] is saved["ece_after"] is None
