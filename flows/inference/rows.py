"""The rows of a file or of a folder of shards, a few thousand at a time, in order."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UserError
from components.validate.formats import column_names, count_rows, kind_of, records
from components.validate.reading import shards

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 4096


@dataclass(frozen=True)
class Rows:
    """What is to be scored: the files, and the column that holds the texts.

    Raises:
        UserError: a file is missing, damaged or of an unknown format, or one lacks the column (``data``).
    """

    path: Path
    column: str

    def __post_init__(self) -> None:
        for file in self.files:
            columns = column_names(file)
            if self.column not in columns:
                raise UserError(
                    f"{file}: expected a column '{self.column}' with the texts; it has {', '.join(columns[:10])}.",
                    "Name the column of the texts: `--column NAME`.",
                    "data",
                )

    @property
    def files(self) -> list[Path]:
        return shards(self.path)

    @property
    def columns(self) -> list[str]:
        """All columns of the first file."""
        return column_names(self.files[0])

    def identity(self) -> str:
        """A hash that is another when a file was changed: of the names, sizes and times of change."""
        told = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        return hashlib.sha256(repr((told, self.column)).encode()).hexdigest()

    def count(self) -> int | None:
        """How many rows there are, where that is known without reading them."""
        if any(kind_of(file) != "Parquet" for file in self.files):
            return None
        return sum(count_rows(file) for file in self.files)

    def tables(self) -> Iterator[pa.Table]:
        """Every row, `AT_ONCE` at a time; values of CSV, TSV and JSON lines are text.

        Raises:
            UserError: a row is damaged or has no text; names it (``data``).
        """
        first = 0
        for file in self.files:
            for table in _parquet(file) if kind_of(file) == "Parquet" else _text(file):
                self._check(file, table, first)
                first += len(table)
                yield table

    def _check(self, file: Path, table: pa.Table, first: int) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = table[self.column]
        if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            raise UserError(
                f"{file}: expected texts in the column '{self.column}'; it holds {texts.type}.",
                "Name the column of the texts: `--column NAME`.",
                "data",
            )
        if texts.null_count:
            row = first + pc.index(pc.is_null(texts), True).as_py() + 1
            raise UserError(
                f"{file}: row {row} has no text.", "Leave such rows out, or give them an empty text.", "data"
            )


def _parquet(file: Path) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(AT_ONCE):
            yield pa.Table.from_batches([batch])


def _text(file: Path) -> Iterator[pa.Table]:
    import pyarrow as pa

    columns = column_names(file)
    rows = records(file, columns)
    schema = pa.schema([(name, pa.string()) for name in columns])
    while batch := list(itertools.islice(rows, AT_ONCE)):
        values = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
        yield pa.Table.from_arrays(values, schema=schema)
