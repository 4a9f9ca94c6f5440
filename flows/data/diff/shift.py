"""How the labels and the lengths of each split are distributed in both versions, and how far apart that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

MOST_LABELS = 50
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# The first bound that a distance is below; 0.03 means that 3% of the rows would have to be others.
_WORDS = ((1e-9, "none"), (0.01, "hardly any"), (0.05, "small"), (0.15, "clear"))


def in_words(distance: float | None) -> str:
    """What a total variation or a distance of cumulative shares amounts to."""
    if distance is None:
        return "not comparable"
    return next((word for bound, word in _WORDS if distance < bound), "large")


def labels(database: duckdb.DuckDBPyConnection, split: str) -> dict[str, Any]:
    """Rows of each label, the most changed ones first, and the total variation between the two distributions.

    The total variation is half the sum of the differences of the shares: 0 for equal ones, 1 if no label is shared.
    """
    rows = database.execute(_LABELS, {"split": split, "most": MOST_LABELS}).fetchall()
    if not rows:
        return {"values": {}, "number": 0, "total_variation": None, "says": "no labels"}
    *_, number, distance, in_both = rows[0]
    total_variation = float(distance) if in_both else None
    return {
        "values": {label: {"from": before, "to": after} for label, before, after, *_ in rows},
        "number": number,
        "total_variation": total_variation,
        "says": in_words(total_variation),
    }


def lengths(database: duckdb.DuckDBPyConnection, split: str) -> dict[str, Any]:
    """Quantiles, mean and maximum of the characters of a text, and the largest distance of the cumulative shares."""
    sides = {name: _of_side(database, split, side) for name, side in (("from", "a"), ("to", "b"))}
    distance = None
    if all(sides.values()):
        ((distance,),) = database.execute(_CUMULATIVE, {"split": split}).fetchall()
    return {**sides, "distance": distance, "says": in_words(distance)}


def _of_side(database: duckdb.DuckDBPyConnection, split: str, side: str) -> dict[str, Any] | None:
    counts = database.execute(_LENGTHS, {"split": split, "side": side}).fetchall()
    total = sum(rows for _, rows in counts)
    if not total:
        return None
    return {
        "quantiles": {f"{share:g}": _quantile(counts, share * total) for share in QUANTILES},
        "mean": sum(length * rows for length, rows in counts) / total,
        "max": counts[-1][0],
    }


def _quantile(counts: Sequence[tuple[int, int]], rank: float) -> int:
    """The smallest length that at least ``rank`` rows don't exceed; ``counts`` is length and rows, ascending."""
    seen = 0
    for length, rows in counts:
        seen += rows
        if seen >= rank:
            return length
    return counts[-1][0]


_LABELS = """
    WITH counts AS (
        SELECT label, count(*) FILTER (side = 'a') AS before, count(*) FILTER (side = 'b') AS after
        FROM rows WHERE split = $split AND label IS NOT NULL GROUP BY label),
    shares AS (
        SELECT *, abs(before / greatest(sum(before) OVER (), 1) - after / greatest(sum(after) OVER (), 1)) AS apart,
               sum(before) OVER () > 0 AND sum(after) OVER () > 0 AS in_both
        FROM counts)
    SELECT label, before, after, count(*) OVER () AS number, sum(apart) OVER () / 2 AS distance, in_both
    FROM shares ORDER BY apart DESC, label LIMIT $most
"""
_LENGTHS = """
    SELECT characters, count(*) FROM rows WHERE split = $split AND side = $side GROUP BY characters ORDER BY characters
"""
_CUMULATIVE = """
    WITH counts AS (
        SELECT characters, count(*) FILTER (side = 'a') AS before, count(*) FILTER (side = 'b') AS after
        FROM rows WHERE split = $split GROUP BY characters)
    SELECT max(abs(before_so_far / before_total - after_so_far / after_total)) FROM (
        SELECT sum(before) OVER line AS before_so_far, sum(after) OVER line AS after_so_far,
               sum(before) OVER () AS before_total, sum(after) OVER () AS after_total
        FROM counts WINDOW line AS (ORDER BY characters ROWS UNBOUNDED PRECEDING))
"""
