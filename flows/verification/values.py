"""When two numbers count as equal, and where two lists or trees of values differ first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

VERDICTS = ("equal", "within tolerance", "different")
EQUAL, WITHIN, DIFFERENT = VERDICTS


@dataclass(frozen=True)
class Difference:
    """A place where two values differ; ``size`` is None where one of them is no finite number."""

    where: str
    recorded: str
    found: str
    size: float | None

    def __str__(self) -> str:
        return f"{self.where}: recorded {self.recorded}, now {self.found}"


_AS_WRITTEN = Difference("how it is written", "the same values", "the same values", 0.0)


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two files. ``first`` is the first difference that the tolerance doesn't cover,
    else the first of all; ``greatest`` is the greatest difference between two numbers."""

    verdict: str
    greatest: float | None = None
    first: Difference | None = None


def unequal(where: str, values: Iterable[str]) -> Difference:
    """A place where what was recorded and what was found are no numbers to be compared."""
    recorded, found = values
    return Difference(where, recorded, found, None)


def summed_up(differences: Iterator[Difference], tolerance: float) -> Comparison:
    """The comparison of two files that differ in their bytes and, in their values, as ``differences`` says.

    Where no value differs, ``first`` tells that: the same values, written otherwise.
    """
    greatest: float | None = None
    first: Difference | None = None
    beyond: Difference | None = None
    for difference in differences:
        first = first or difference
        if difference.size is not None:
            greatest = max(greatest or 0.0, difference.size)
        if beyond is None and (difference.size is None or difference.size > tolerance):
            beyond = difference
    if first is None:
        return Comparison(WITHIN, 0.0, _AS_WRITTEN)
    return Comparison(DIFFERENT if beyond else WITHIN, greatest, beyond or first)


def distance(a: float, b: float) -> float | None:
    """How far two numbers are apart: the difference, relative to the larger one where that is above 1 in size.

    NaN equals NaN, an infinity itself; None where one of the two is neither and the other is.
    """
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return None
    return abs(a - b) / max(1.0, abs(a), abs(b))


def tree(recorded: Any, found: Any, path: str = "$") -> Iterator[Difference]:
    """The differences of two JSON values, each with its JSON path; whole numbers must be equal."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in [*recorded, *(key for key in found if key not in recorded)]:
            yield from tree(recorded.get(key, _ABSENT), found.get(key, _ABSENT), f"{path}.{key}")
    elif isinstance(recorded, list) and isinstance(found, list):
        for index in range(max(len(recorded), len(found))):
            before, after = (values[index] if index < len(values) else _ABSENT for values in (recorded, found))
            yield from tree(before, after, f"{path}[{index}]")
    elif _is_number(recorded) and _is_number(found) and float in (type(recorded), type(found)):
        size = distance(float(recorded), float(found))
        if size != 0.0:
            yield Difference(path, shown(recorded), shown(found), size)
    elif type(recorded) is not type(found) or recorded != found:
        yield unequal(path, (shown(recorded), shown(found)))


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def arrays(recorded: Any, found: Any, tolerance: float) -> Iterator[tuple[int, Difference]]:
    """The position of differing numbers in two flat arrays of one length: the first that differ at all, the first
    beyond the tolerance, and those that differ most. Whole numbers and booleans must be equal.
    """
    if recorded.tobytes() == found.tobytes():
        return
    if not np.issubdtype(recorded.dtype, np.floating):
        unequal = np.flatnonzero(recorded != found)[:1]
        yield from ((int(at), _at(recorded, found, int(at), None)) for at in unequal)
        return
    sizes = _distances(recorded.astype(np.float64), found.astype(np.float64))
    finite = np.where(np.isfinite(sizes), sizes, 0.0)
    places = [*np.flatnonzero(sizes)[:1], *np.flatnonzero(sizes > tolerance)[:1]]
    places += [finite.argmax()] if finite.any() else []
    for at in dict.fromkeys(map(int, places)):
        yield at, _at(recorded, found, at, float(sizes[at]))


def _distances(a: Any, b: Any) -> Any:
    """``distance`` for arrays, with infinity in place of None."""
    with np.errstate(invalid="ignore", over="ignore"):
        sizes = np.abs(a - b) / np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isfinite(a) & np.isfinite(b), sizes, np.inf))


def _at(recorded: Any, found: Any, at: int, size: float | None) -> Difference:
    finite = size if size is not None and math.isfinite(size) else None
    return Difference("", shown(recorded[at].item()), shown(found[at].item()), finite)


def shown(value: Any) -> str:
    """A value for people: texts quoted and cut, numbers in full."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
