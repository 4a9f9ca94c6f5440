"""The rows of another task's file, read and checked one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.validate.formats import as_text
from components.validate.measure import form_digest
from components.validate.problems import Problems
from components.validate.reading import read_values
from components.validate.tables import Table

# Both kinds of task in one form: a text is one of ``pieces``, tokens are many; ``labels`` are as many.
# ``form`` is the digest of the normalised text, as for the project's own rows.
READ = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("form", pa.binary()),
        pa.field("pieces", pa.list_(pa.string())),
        pa.field("labels", pa.list_(pa.string())),
    ]
)
_Pieces = tuple[list[str], list[str]]
_Check = Callable[[int, Any, Any, Problems], _Pieces | None]


def read_task_rows(table: Table, target: Path) -> None:
    """Write the rows of a table of a task to a Parquet file with the columns of ``READ``, in order.

    Raises:
        UserError: the file can't be read, or rows that can't be used, with their numbers and what is wrong.
    """
    problems = Problems(table)
    check = _tokens_and_tags if table.lists else _text_and_label
    with pq.ParquetWriter(target, READ, compression="zstd") as writer:
        for rows in read_values(table):
            inputs, targets = rows.values.values()
            found = list(_checked(rows.first, inputs, targets, check, problems))
            columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in READ]
            writer.write_batch(pa.record_batch(columns, schema=READ))
    problems.stop()


def _checked(
    first: int, inputs: list[Any], targets: list[Any], check: _Check, problems: Problems
) -> Iterator[tuple[int, bytes, list[str], list[str]]]:
    for row, values in enumerate(zip(inputs, targets, strict=True), first):
        pieces = check(row, *values, problems)
        if pieces is not None:
            yield row, form_digest(" ".join(pieces[0])), *pieces


def _text_and_label(row: int, text: Any, label: Any, problems: Problems) -> _Pieces | None:
    pieces = [as_text(text) or ""], [as_text(label) or ""]
    faults = [
        f"without a {role}" for role, (value,) in zip(("text", "label"), pieces, strict=True) if not value.strip()
    ]
    for fault in faults:
        problems.add(fault, row)
    return None if faults else pieces


def _tokens_and_tags(row: int, tokens: Any, tags: Any, problems: Problems) -> _Pieces | None:
    pieces = _strings(row, tokens, "token", problems), _strings(row, tags, "tag", problems)
    if pieces[0] is None or pieces[1] is None:
        return None
    if len(pieces[0]) != len(pieces[1]):
        counts = f"{len(pieces[0])} tokens, {len(pieces[1])} tags"
        problems.add("with not as many tags as tokens", row, counts)
        return None
    return pieces[0], pieces[1]


def _strings(row: int, value: Any, what: str, problems: Problems) -> list[str] | None:
    """A list of strings and numbers, none of them empty, as strings."""
    if not isinstance(value, list):
        problems.add(f"without a list of {what}s", row, "null" if value is None else f"{value!r:.40}")
        return None
    if not value and what == "token":
        problems.add("with an empty list of tokens", row)
        return None
    if nested := next((item for item in value if isinstance(item, list | dict | tuple)), None):
        problems.add(f"with a {what} that is no text", row, f"{nested!r:.40}")
        return None
    found = [as_text(item) or "" for item in value]
    if not all(item.strip() for item in found):
        place = next(place for place, item in enumerate(found) if not item.strip())
        problems.add(f"with an empty {what}", row, f"{what} {place}")
        return None
    return found
