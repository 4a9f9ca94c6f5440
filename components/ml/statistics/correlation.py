"""Agreement of predicted numbers with actual ones: correlations and the root mean squared error."""

from __future__ import annotations

import numpy as np

# A variance below this share of the mean square is rounding.
_ROUNDING = 1e-12


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation, -1 to 1; 0 where one side is constant or there are fewer than 2 rows.

    Args:
        first: of shape (rows,).
        second: same shape.
    """
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    y, x = _centred(first), _centred(second)
    return float(np.clip(y @ x / np.sqrt((y @ y) * (x @ x)), -1.0, 1.0))


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation, -1 to 1: equal values share their average rank; 0 where ``pearson`` is.

    Args:
        first: of shape (rows,).
        second: same shape.
    """
    return pearson(_ranks(first), _ranks(second))


def root_mean_squared_error(first: np.ndarray, second: np.ndarray) -> float:
    """In the unit of the values; both arrays have shape (rows,), at least one row."""
    return float(np.sqrt(np.mean((first.astype(np.float64) - second) ** 2)))


def moments(targets: np.ndarray, predictions: np.ndarray, centre: float) -> np.ndarray:
    """All that the correlation and the error need to know of each row: float64 of shape (rows, 6).

    1, y, x, y * y, x * x and x * y, where y is the target and x the prediction less the centre.

    Args:
        targets: of shape (rows,).
        predictions: same shape.
        centre: any number near the targets' mean; the closer, the less is lost to rounding.
    """
    y, x = targets.astype(np.float64) - centre, predictions.astype(np.float64) - centre
    return np.stack([np.ones_like(y), y, x, y * y, x * x, x * y], axis=1)


def correlation_of(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation of shape (...); 0 where one side is constant up to rounding (1e-6 of its distance from 0).

    Args:
        sums: sums over rows of ``moments``, of shape (..., 6).
    """
    rows, y, x, yy, xx, xy = np.moveaxis(sums, -1, 0)
    spread_y, spread_x = rows * yy - y * y, rows * xx - x * x
    varies = (spread_y > _ROUNDING * rows * yy) & (spread_x > _ROUNDING * rows * xx)
    scale = np.sqrt(np.where(varies, spread_y, 1.0)) * np.sqrt(np.where(varies, spread_x, 1.0))
    return np.asarray(np.where(varies, np.clip((rows * xy - x * y) / scale, -1.0, 1.0), 0.0))


def rmse_of(sums: np.ndarray) -> np.ndarray:
    """Root mean squared error of shape (...); errors below 1e-8 of the values' spread are lost to rounding.

    Args:
        sums: sums over rows of ``moments``, of shape (..., 6).
    """
    rows, _, _, yy, xx, xy = np.moveaxis(sums, -1, 0)
    return np.asarray(np.sqrt(np.maximum(yy + xx - 2 * xy, 0.0) / np.maximum(rows, 1)))


def _centred(values: np.ndarray) -> np.ndarray:
    """Less the mean, and scaled to at most 1 so that no square over- or underflows."""
    shifted = values - values.mean(dtype=np.float64)
    return np.asarray(shifted / np.abs(shifted).max())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values the average of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
