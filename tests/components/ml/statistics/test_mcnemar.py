"""McNemar's exact test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.ml.statistics.mcnemar import mcnemar


def rows(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """So many rows that both models, one of them, or neither predicted right."""
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, first, second, neither], axis=0).astype(bool)
    return right[:, 0], right[:, 1]


@pytest.mark.parametrize(("first", "second"), [(10, 2), (5, 5), (1, 0), (0, 7), (25, 40)])
def test_p_is_the_share_of_coins_that_fall_as_unevenly(first: int, second: int) -> None:
    found = mcnemar(*rows(100, first, second, 30))
    discordant = first + second
    tail = sum(math.comb(discordant, heads) for heads in range(max(first, second), discordant + 1)) / 2**discordant
    assert (found.only_first, found.only_second) == (first, second)
    assert found.p == pytest.approx(min(1.0, 2 * tail))


def test_rows_on_which_the_models_agree_say_nothing() -> None:
    assert mcnemar(*rows(0, 9, 2, 0)).p == mcnemar(*rows(1000, 9, 2, 1000)).p


def test_models_that_never_differ_are_not_told_apart() -> None:
    assert mcnemar(*rows(10, 0, 0, 5)).p == 1.0
    assert mcnemar(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)).p == 1.0
