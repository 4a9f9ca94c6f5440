"""The rows of a table as their task reads them, and how they are kept while the gate is at work."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.ml.tasks.task import Example, Task
from components.validate.reading import read_values
from components.validate.tables import Table, given_roles


@dataclass(frozen=True)
class Examples:
    """Some consecutive rows of a table: the first one's number, what the task reads, and all values by role."""

    first: int
    examples: list[Example]
    values: Mapping[str, list[Any]]


def read_examples(table: Table, task: Task) -> Iterator[Examples]:
    """The rows of a table in batches, in order.

    Raises:
        UserError: whatever is wrong with a file; names the file and the line.
    """
    roles = given_roles(table, task)
    for rows in read_values(table):
        given = zip(*(rows.values[role] for role in roles), strict=True)
        examples = [_usable(task.read(dict(zip(roles, row, strict=True)))) for row in given]
        yield Examples(rows.first, examples, rows.values)


def _usable(example: Example) -> Example:
    """A row that can't be used has no target."""
    return dataclasses.replace(example, names=None, value=None) if example.faults else example


def texts_of(example: Example, paired: bool) -> tuple[str | None, ...]:
    """The one text of a row, or both; None for one that isn't there."""
    return (*example.texts, None, None)[: 2 if paired else 1]


def kept(examples: Sequence[Example]) -> dict[str, list[Any]]:
    """What is kept of each row's target and words: the columns ``words``, ``names`` and ``value``, the last as JSON."""
    return {
        "words": [example.tokens for example in examples],
        "names": [example.names for example in examples],
        "value": [
            None if example.value is None else json.dumps(example.value, ensure_ascii=False) for example in examples
        ],
    }


def restored(columns: Mapping[str, Sequence[Any]]) -> list[Example]:
    """Rows again from ``text``, ``text_pair`` and what ``kept`` gives of them."""
    named = ("text", "text_pair", "words", "names", "value")
    return [
        Example(
            (text,) if pair is None else (text, pair),
            tokens=words,
            names=names,
            value=None if value is None else json.loads(value),
        )
        for text, pair, words, names, value in zip(*(columns[name] for name in named), strict=True)
    ]
