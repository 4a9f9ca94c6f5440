"""The rows of a file or of a folder of shards, a few thousand at a time, in order."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UserError
from components.validate.formats import column_names, kind_of, parquet, records
from components.validate.reading import shards

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 4096


@dataclass(frozen=True)
class Rows:
    """What is to be scored: the files, the column that holds the texts and, of pairs, that of the second texts.

    Raises:
        UserError: a file is missing, damaged or of an unknown format, one lacks the column of the texts or has a column
            twice, or the files have different columns (``data``).
    """

    path: Path
    column: str
    pair: str | None = None

    def __post_init__(self) -> None:
        if self.pair == self.column:
            raise UserError(
                f"Expected two columns for the texts of pairs; got '{self.column}' for both.",
                "Name the column of the second texts: `--pair NAME`.",
                "parameters",
            )
        for column, option in self.texts.items():
            if column not in self.columns:
                raise UserError(
                    f"{self.path}: expected a column '{column}' with the texts; it has {', '.join(self.columns[:10])}.",
                    f"Name the column of the texts: `{option} NAME`.",
                    "data",
                )

    @property
    def texts(self) -> dict[str, str]:
        """The columns of texts, and the options that name them."""
        return {self.column: "--column"} | ({self.pair: "--pair"} if self.pair else {})

    @cached_property
    def files(self) -> list[Path]:
        return shards(self.path)

    @cached_property
    def columns(self) -> list[str]:
        """All columns; JSON lines have those of all files, other files must agree."""
        if all(kind_of(file) == "JSON lines" for file in self.files):
            return list(dict.fromkeys(name for file in self.files for name in column_names(file)))
        first = _schema(self.files[0])
        for file in self.files[1:]:
            if (schema := _schema(file)) != first:
                raise UserError(
                    f"{file} has other columns than {self.files[0].name}: {_told(schema, first)}; expected "
                    f"{_told(first, schema)}.",
                    "Give the files the same columns of the same types in the same order, or score them one by one.",
                    "data",
                )
        return list(first.names)

    @cached_property
    def plain_columns(self) -> list[str]:
        """Those of them that hold texts or numbers, no lists and the like."""
        import pyarrow as pa

        if kind_of(self.files[0]) != "Parquet":
            return self.columns
        return [field.name for field in _schema(self.files[0]) if not pa.types.is_nested(field.type)]

    def identity(self) -> str:
        """A hash that is another when a file was changed: of the names, sizes and times of change."""
        told = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        return hashlib.sha256(repr((told, *self.texts)).encode()).hexdigest()

    def count(self) -> int | None:
        """How many rows there are, where that is known without reading them."""
        if any(kind_of(file) != "Parquet" for file in self.files):
            return None
        total = 0
        for file in self.files:
            with parquet(file) as opened:
                total += opened.metadata.num_rows
        return total

    def tables(self) -> Iterator[pa.Table]:
        """Every row, `AT_ONCE` at a time; values of CSV, TSV and JSON lines are text.

        An empty text of a CSV or TSV file is one.

        Raises:
            UserError: a row is damaged or has no text; names it (``data``).
        """
        for file in self.files:
            first = 0
            for table in _parquet(file) if kind_of(file) == "Parquet" else _text(file, self.columns, list(self.texts)):
                self._check(file, table, first)
                first += len(table)
                yield table

    def _check(self, file: Path, table: pa.Table, first: int) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        for column, option in self.texts.items():
            texts = table[column]
            if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
                raise UserError(
                    f"{file}: expected texts in the column '{column}'; it holds {texts.type}.",
                    f"Name the column of the texts: `{option} NAME`.",
                    "data",
                )
            if texts.null_count:
                row = first + pc.index(pc.is_null(texts), True).as_py() + 1
                raise UserError(
                    f"{file}: row {row} has no text in the column '{column}'.",
                    "Leave such rows out, or give them an empty text.",
                    "data",
                )


def _schema(file: Path) -> pa.Schema:
    """The columns of a file and their types; those of CSV, TSV and JSON lines are text.

    Raises:
        UserError: it is damaged, or has two columns of one name (``data``).
    """
    import pyarrow as pa

    if kind_of(file) == "Parquet":
        with parquet(file) as opened:
            schema = opened.schema_arrow.remove_metadata()
    else:
        schema = pa.schema([(name, pa.string()) for name in column_names(file)])
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise UserError(f"{file} has the column '{twice[0]}' twice.", "Rename one of them, or leave it out.", "data")
    return schema


def _told(schema: pa.Schema, other: pa.Schema) -> str:
    """The columns in which a schema differs from the other, all of them if they differ in order alone."""
    differing = [field for field in schema if field not in list(other)] or list(schema)
    return ", ".join(f"{field.name} ({field.type})" for field in differing[:10])


def _parquet(file: Path) -> Iterator[pa.Table]:
    import pyarrow as pa

    with parquet(file) as opened:
        for batch in opened.iter_batches(AT_ONCE):
            yield pa.Table.from_batches([batch]).replace_schema_metadata()


def _text(file: Path, columns: list[str], texts: list[str]) -> Iterator[pa.Table]:
    import pyarrow as pa

    empty_is_null = kind_of(file) != "JSON lines"
    rows = records(file, columns)
    schema = pa.schema([(name, pa.string()) for name in columns])
    while batch := list(itertools.islice(rows, AT_ONCE)):
        values = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
        if empty_is_null:
            for place in map(columns.index, texts):
                values[place] = values[place].fill_null("")
        yield pa.Table.from_arrays(values, schema=schema)
