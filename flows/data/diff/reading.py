"""The rows of two data versions as one DuckDB view; a file that both have is read once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.ml.rows.inputs import shown
from components.params.data import Data
from components.validate.database import connect
from components.validate.examples import Examples, read_examples
from components.validate.measure import form_digest
from components.validate.tables import split_table
from flows.repo.data_versions import DataVersion

SIDES = ("a", "b")
# source: the number of the file. form: the digest of the normalised text; a missing text counts as an empty one.
ROWS = pa.schema(
    [
        pa.field("source", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("label", pa.string()),
        pa.field("group", pa.string()),
        pa.field("document", pa.string()),
        pa.field("form", pa.binary()),
        pa.field("characters", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Side:
    """One of the two versions: what it is, its section ``data``, the splits it has, and where its files lie."""

    version: DataVersion
    data: Data
    splits: tuple[str, ...]
    root: Path

    def identity(self, split: str) -> tuple[object, ...]:
        """What decides the rows of a split: its files' formats and contents, its task and the columns that are read."""
        path = self.data.files[split].removeprefix("data/")
        names = sorted(name for name in self.version.files if name == path or name.startswith(f"{path}/"))
        contents = tuple((Path(name).suffix, self.version.files[name]) for name in names)
        return (*contents, self.data.task, self.data.columns, split == "unlabelled")


@contextmanager
def opened(sides: dict[str, Side], scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the view ``rows`` (side, split and the columns of ``ROWS``) and the table ``given``
    (side, split, source).

    Raises:
        UserError: whatever is wrong with a file; names the version, the file and the line.
    """
    measured = scratch / "measured"
    measured.mkdir()
    numbers: dict[tuple[object, ...], int] = {}
    given: list[tuple[str, str, int]] = []
    for name, side in sides.items():
        for split in side.splits:
            identity = side.identity(split)
            if identity not in numbers:
                numbers[identity] = len(numbers)
                _measure(side, split, numbers[identity], measured / f"{numbers[identity]:03}.parquet")
            given.append((name, split, numbers[identity]))
    with connect(measured / "*.parquet", scratch / "spill") as database:
        database.execute("CREATE TABLE given (side VARCHAR, split VARCHAR, source INTEGER)")
        database.executemany("INSERT INTO given VALUES (?, ?, ?)", given)
        database.execute("CREATE VIEW rows AS SELECT side, split, measured.* FROM measured JOIN given USING (source)")
        yield database


def _measure(side: Side, split: str, number: int, target: Path) -> None:
    try:
        with pq.ParquetWriter(target, ROWS, compression="zstd") as writer:
            for rows in read_examples(split_table(side.data, split, side.root), side.data.kind):
                writer.write_batch(_measured(number, rows, side.data))
    except UserError as error:
        named = error.message.replace(f"{side.root}/", f"{side.version.name}:")
        raise UserError(named, error.remedy, error.kind) from None


def _measured(number: int, rows: Examples, data: Data) -> pa.RecordBatch:
    task, examples = data.kind, rows.examples
    given = [(example.texts[0], example.texts[1] if len(example.texts) > 1 else None) for example in examples]
    pieces = [(first or "",) if second is None else (first or "", second) for first, second in given]
    columns = {
        "source": [number] * len(pieces),
        "row": list(range(rows.first, rows.first + len(pieces))),
        "text": [first if second is None else shown((first or "", second)) for first, second in given],
        "label": [task.shown(example) for example in examples],
        "group": rows.values["group"],
        "document": rows.values["document"],
        "form": [form_digest(*texts) for texts in pieces],
        "characters": [sum(map(len, texts)) for texts in pieces],
    }
    return pa.RecordBatch.from_pydict(columns, schema=ROWS)
