"""Compares two files of a stage's output: bit for bit, else value by value, as the kind of file allows. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from flows.verification.tensors import Tensors
from flows.verification.values import (
    DIFFERENT,
    EQUAL,
    Comparison,
    Difference,
    arrays,
    distance,
    shown,
    summed_up,
    tree,
    unequal,
)

TOLERANCE = 1e-6
_BLOCK = 2**20
_BATCH = 65_536  # rows of a table held at a time
_NUMBER = re.compile(r"(?<![\w.])([-+]?(?:\d+\.\d*|\.?\d+)(?:[eE][-+]?\d+)?)(?![\w.])")
_Compare = Callable[[Path, Path, float], Iterator[Difference]]


def compare_files(recorded: Path | None, found: Path | None, tolerance: float = TOLERANCE) -> Comparison:
    """Compare a recorded file with the one that was made again; None for one that isn't there.

    Two numbers are within the tolerance if they differ by no more than it, relative to the larger where that is
    above 1. Weights (safetensors), tables (Parquet), JSON, JSON lines and the numbers in CSV and SVG files are
    compared so; anything else must be equal bit for bit.
    """
    if recorded is None or found is None:
        return Comparison(DIFFERENT, first=unequal("the file", map(_there, (recorded, found))))
    if same_bytes(recorded, found):
        return Comparison(EQUAL)
    compare = _BY_SUFFIX.get(found.suffix, _bytes)
    try:
        return summed_up(compare(recorded, found, tolerance), tolerance)
    except (ValueError, LookupError, TypeError, OSError) as error:  # one of them isn't what its name says
        return Comparison(DIFFERENT, first=unequal("the content", ("", f"what can't be read: {error}")))


def same_bytes(a: Path, b: Path) -> bool:
    """Whether two files are equal bit for bit."""
    if a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb") as first, b.open("rb") as second:
        while block := first.read(_BLOCK):
            if block != second.read(_BLOCK):
                return False
    return True


def _there(path: Path | None) -> str:
    return "nothing" if path is None else f"{path.stat().st_size:,} bytes"


def _bytes(recorded: Path, found: Path, _: float) -> Iterator[Difference]:
    """The first line that differs, or the first byte of files that aren't text."""
    try:
        lines = zip_longest(recorded.read_text("utf-8").splitlines(), found.read_text("utf-8").splitlines())
        for number, (before, after) in enumerate(lines, 1):
            if before != after:
                yield unequal(f"line {number}", (_line(before), _line(after)))
                return
        yield unequal("line ends", ("others", "others"))
    except UnicodeDecodeError:
        yield _first_byte(recorded, found)


def _first_byte(recorded: Path, found: Path) -> Difference:
    position = 0
    with recorded.open("rb") as first, found.open("rb") as second:
        while (a := first.read(_BLOCK)) == (b := second.read(_BLOCK)) and a:
            position += len(a)
    at = next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    values = (f"0x{block[at]:02x}" if at < len(block) else "the end" for block in (a, b))
    return unequal(f"byte {position + at}", values)


def _line(text: str | None) -> str:
    return "nothing" if text is None else shown(text)


def _json(recorded: Path, found: Path, _: float) -> Iterator[Difference]:
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (recorded, found))
    yield from tree(before, after)


def _json_lines(recorded: Path, found: Path, _: float) -> Iterator[Difference]:
    with recorded.open(encoding="utf-8") as first, found.open(encoding="utf-8") as second:
        for number, (before, after) in enumerate(zip_longest(first, second), 1):
            if before is None or after is None:
                yield unequal(f"line {number}", (_line(before), _line(after)))
                return
            if before != after:
                yield from tree(json.loads(before), json.loads(after), f"line {number}: $")


def _numbers_in_text(recorded: Path, found: Path, _: float) -> Iterator[Difference]:
    """Lines whose words are equal and whose numbers are compared."""
    lines = zip_longest(recorded.read_text("utf-8").splitlines(), found.read_text("utf-8").splitlines())
    for number, (before, after) in enumerate(lines, 1):
        if before == after:
            continue
        parts = [_NUMBER.split(line) if line is not None else [] for line in (before, after)]
        if len(parts[0]) != len(parts[1]) or parts[0][::2] != parts[1][::2]:
            yield unequal(f"line {number}", (_line(before), _line(after)))
            continue
        for a, b in zip(parts[0][1::2], parts[1][1::2], strict=True):
            if a != b:
                whole = a.lstrip("+-").isdigit() and b.lstrip("+-").isdigit()
                yield Difference(f"line {number}", a, b, None if whole else distance(float(a), float(b)))


def _weights(recorded: Path, found: Path, tolerance: float) -> Iterator[Difference]:
    before, after = Tensors(recorded), Tensors(found)
    for name in [*before.names, *(name for name in after.names if name not in before.names)]:
        described = [tensors.described(name) for tensors in (before, after)]
        if described[0] != described[1]:
            yield unequal(f"tensor {name}", described)
            continue
        position = 0
        for a, b in zip(before.blocks(name), after.blocks(name), strict=True):
            for at, difference in arrays(a, b, tolerance):
                index = np.unravel_index(position + at, before.shape(name))
                yield replace(difference, where=f"tensor {name}[{', '.join(str(int(part)) for part in index)}]")
            position += len(a)
    if before.metadata != after.metadata:
        yield unequal("the metadata", (shown(before.metadata), shown(after.metadata)))


def _tables(recorded: Path, found: Path, tolerance: float) -> Iterator[Difference]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(recorded) as before, pq.ParquetFile(found) as after:
        if before.schema_arrow != after.schema_arrow:
            names = [", ".join(f"{field.name} {field.type}" for field in file.schema_arrow) for file in (before, after)]
            yield unequal("the columns", names)
            return
        rows = [file.metadata.num_rows for file in (before, after)]
        if rows[0] != rows[1]:
            yield unequal("the number of rows", (f"{count:,}" for count in rows))
        position = 0
        for a, b in zip(before.iter_batches(_BATCH), after.iter_batches(_BATCH), strict=False):
            count = min(a.num_rows, b.num_rows)
            for name in a.schema.names:
                yield from _column(a[name].slice(0, count), b[name].slice(0, count), name, position, tolerance)
            position += count


def _column(recorded: Any, found: Any, name: str, first: int, tolerance: float) -> Iterator[Difference]:
    """The differences of one column of a batch; lists of numbers are compared number by number."""
    import pyarrow as pa

    if recorded.equals(found):
        return
    if pa.types.is_floating(recorded.type) and not (recorded.null_count or found.null_count):
        for at, difference in arrays(recorded.to_numpy(), found.to_numpy(), tolerance):
            yield replace(difference, where=f"row {first + at}, column {name}")
        return
    for row, (a, b) in enumerate(zip(recorded.to_pylist(), found.to_pylist(), strict=True), first):
        yield from tree(a, b, f"row {row}, column {name}")


_BY_SUFFIX: dict[str, _Compare] = {
    ".safetensors": _weights,
    ".parquet": _tables,
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _numbers_in_text,
    ".svg": _numbers_in_text,
}
