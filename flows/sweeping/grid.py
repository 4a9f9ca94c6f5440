"""The grid of a sweep: ``distill.temperature=1,2,4`` as values by key, and every combination of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.errors import UserError
from flows.repo import lockfile, overrides

Grid = Mapping[str, Sequence[Any]]
_OPENING, _CLOSING = "[{(", "]})"


@dataclass(frozen=True)
class Combination:
    """One point of the grid; ``number`` counts from 1."""

    number: int
    values: Mapping[str, Any]

    @property
    def label(self) -> str:
        """For people, such as ``distill.temperature=4 distill.student.layers=2``."""
        return " ".join(f"{key}={text}" for key, text in self.texts.items())

    @property
    def texts(self) -> dict[str, str]:
        """The values as they can be given on the command line."""
        return {key: shown(value) for key, value in self.values.items()}


def parse(arguments: Sequence[str]) -> dict[str, list[Any]]:
    """Values by dotted key; values stand between commas, and ``[0,2]`` and ``{a: 1, b: 2}`` are one value.

    Raises:
        UserError: there is no key or value, a key stands twice, or a value does.
    """
    overrides.parse([argument.partition("=")[0] + "=0" for argument in arguments])  # refuses keys that stand twice
    grid: dict[str, list[Any]] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        texts = split(text)
        if not equals or not all(texts):
            raise _refused(argument, "expected KEY=VALUE,VALUE,..., such as distill.temperature=1,2,4")
        values = [overrides.parse([f"{key}={each}"])[key.strip()] for each in texts]
        told = [json.dumps(value, sort_keys=True, default=str) for value in values]
        if twice := next((text for text, value in zip(texts, told, strict=True) if told.count(value) > 1), None):
            raise _refused(argument, f"the value {twice} stands twice")
        grid[key.strip()] = values
    if not grid:
        raise _refused("", "expected at least one KEY=VALUE,VALUE,..., such as distill.temperature=1,2,4")
    return grid


def split(text: str) -> list[str]:
    """The parts between commas, but for commas in brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def combinations(grid: Grid) -> list[Combination]:
    """Every combination; the last key varies fastest."""
    return [
        Combination(number, dict(zip(grid, values, strict=True)))
        for number, values in enumerate(itertools.product(*grid.values()), 1)
    ]


def digest(grid: Grid, inputs: str) -> str:
    """What identifies a sweep: its grid, whatever the order, and the digest of all else that decides its results."""
    return lockfile.digest({"inputs": inputs, "grid": {key: list(grid[key]) for key in sorted(grid)}})


def shown(value: Any) -> str:
    """A value as YAML has it in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _refused(argument: str, problem: str) -> UserError:
    told = f"'{argument}': {problem}." if argument else f"{problem[0].upper()}{problem[1:]}."
    return UserError(told, "`stillhouse sweep --help` shows the forms.", "parameters")
