"""Correlations and errors against scipy's and scikit-learn's, and from sums as from rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from components.ml.statistics import correlation


def sample(seed: int, rows: int, noise: float = 1.0, decimals: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Scores from 0 to 5 and predictions of them, in single precision; the fewer decimals, the more ties."""
    draw = np.random.default_rng(seed)
    targets = draw.uniform(0, 5, rows).round(decimals)
    predictions = (targets + draw.normal(0, noise, rows)).round(decimals)
    return targets.astype(np.float32), predictions.astype(np.float32)


SAMPLES = [
    sample(1, 500),
    sample(2, 60, decimals=0),
    sample(3, 40, noise=0.001),
    sample(4, 2),
    sample(5, 300, noise=100.0, decimals=1),
    (np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])),
]


@pytest.mark.parametrize(("first", "second"), SAMPLES)
def test_correlations_are_scipys(first: np.ndarray, second: np.ndarray) -> None:
    wide = first.astype(np.float64), second.astype(np.float64)
    assert correlation.pearson(first, second) == pytest.approx(stats.pearsonr(*wide).statistic, abs=1e-12)
    assert correlation.spearman(first, second) == pytest.approx(stats.spearmanr(*wide).statistic, abs=1e-12)


@pytest.mark.parametrize(("first", "second"), SAMPLES)
def test_the_error_is_scikit_learns(first: np.ndarray, second: np.ndarray) -> None:
    expected = root_mean_squared_error(first.astype(np.float64), second.astype(np.float64))
    assert correlation.root_mean_squared_error(first, second) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("first", "second"), SAMPLES)
@pytest.mark.parametrize("centre", [2.5, 0.0])
def test_sums_of_moments_give_what_the_rows_give(first: np.ndarray, second: np.ndarray, centre: float) -> None:
    rows = correlation.moments(first, second, centre)
    assert rows.shape == (len(first), 6)
    assert rows.dtype == np.float64
    sums = rows.sum(axis=0)
    assert float(correlation.correlation_of(sums)) == pytest.approx(correlation.pearson(first, second), abs=1e-9)
    assert float(correlation.rmse_of(sums)) == pytest.approx(
        correlation.root_mean_squared_error(first, second), abs=1e-9
    )


def test_many_sums_at_once_give_what_each_gives() -> None:
    rows = correlation.moments(*sample(6, 60), 2.5)
    sums = rows.reshape(3, 5, 4, 6).sum(axis=2)
    correlations, errors = correlation.correlation_of(sums), correlation.rmse_of(sums)
    assert correlations.shape == errors.shape == (3, 5)
    for place in np.ndindex(3, 5):
        assert correlations[place] == pytest.approx(float(correlation.correlation_of(sums[place])), abs=1e-12)
        assert errors[place] == pytest.approx(float(correlation.rmse_of(sums[place])), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.full(7, 0.1), np.arange(7.0)),
        (np.arange(7.0), np.full(7, 0.1)),
        (np.full(7, 0.1), np.full(7, 0.3)),
        (np.array([1.0]), np.array([2.0])),
        (np.array([]), np.array([])),
    ],
)
def test_no_correlation_where_a_side_does_not_vary(first: np.ndarray, second: np.ndarray) -> None:
    assert correlation.pearson(first, second) == 0
    assert correlation.spearman(first, second) == 0
    for centre in (0.0, 0.07, 2.5):
        assert correlation.correlation_of(correlation.moments(first, second, centre).sum(axis=0)) == 0


def test_perfect_and_opposite_predictions_stay_in_range() -> None:
    first, _ = sample(7, 200)
    sums = correlation.moments(first, first, 2.5).sum(axis=0)
    assert correlation.pearson(first, first) == pytest.approx(1.0, abs=1e-12)
    assert -1 <= correlation.pearson(first, -first) <= correlation.pearson(first, first) <= 1
    assert float(correlation.correlation_of(sums)) == pytest.approx(1.0, abs=1e-12)
    assert float(correlation.correlation_of(sums)) <= 1
    assert correlation.root_mean_squared_error(first, first) == 0
    assert float(correlation.rmse_of(sums)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_tiny_and_huge_values_correlate_alike(scale: float) -> None:
    first, second = (values.astype(np.float64) for values in sample(8, 50))
    expected = correlation.pearson(first, second)
    assert correlation.pearson(first * scale, second * scale) == pytest.approx(expected, abs=1e-12)


def test_equal_values_share_their_average_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    found = correlation.spearman(np.array([1, 7, 7, 9]), np.array([0.1, 0.2, 0.3, 0.4]))
    assert found == pytest.approx(4.5 / np.sqrt(4.5 * 5))
