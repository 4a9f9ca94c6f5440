"""McNemar's test in its exact form: are two models right on equally many of the rows that only one of them gets right?

McNemar, Q. (1947), "Note on the sampling error of the difference between correlated proportions or percentages",
Psychometrika 12, 153-157. Rows on which both models are right, or both wrong, say nothing of the difference; of the
others, half should fall to either model if neither were better, so their number is binomial with probability 1/2.
The test takes rows for independent. Rows of one document are alike, so its p is too small where documents are long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class McNemar:
    """How many rows only the first, and only the second model predicted right, and the two-sided p-value."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """The exact test.

    Args:
        first: whether the first model predicted each row right: booleans of shape (rows,).
        second: the same of the second model, on the same rows.
    """
    from scipy.stats import binomtest

    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p)
