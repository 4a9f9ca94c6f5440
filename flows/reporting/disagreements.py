"""The test rows on which two models disagree: how many, and the most telling with their texts; asked out of core."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from components.ml.rows.inputs import BETWEEN, TOKENS, input_columns
from components.validate.database import quoted

MEMORY = "512MB"
LONGEST = 320  # characters of a text
COLUMNS = {"row", "group", "actual", "predicted", "right", "confidence"}
LISTS = {"second": 12, "first": 6, "neither": 3}
"""Of rows on which that model is wrong, or on which neither is right, how many are shown."""


@dataclass(frozen=True)
class Row:
    """A test row and what the two models say of it, each with its confidence where the task has one."""

    number: int
    text: str
    group: str | None
    label: str
    predictions: tuple[str, str]
    confidences: tuple[float | None, float | None]


@dataclass(frozen=True)
class Disagreement:
    """How two models differ on the test rows.

    Args:
        models: their names.
        rows: how many rows both have predicted.
        counts: on how many of those on which they differ only the ``first`` is right, the ``second``, or ``neither``.
        shown: of each of these kinds, the rows whose wrong prediction is the most confident; the first rows where there
            is no confidence.
    """

    models: tuple[str, str]
    rows: int
    counts: Mapping[str, int]
    shown: Mapping[str, Sequence[Row]]

    @property
    def differ(self) -> int:
        """On how many rows they differ."""
        return sum(self.counts.values())


def disagreement(predictions: Path, texts: Path, models: tuple[str, str]) -> Disagreement | None:
    """Where the two models differ; None where predictions or texts aren't there, or what people read of them.

    Args:
        predictions: the folder with MODEL.parquet (row, group, actual, predicted, right, confidence).
        texts: the folder with the test rows' shards (row, and what a model reads).
        models: the names of the two.
    """
    files = [predictions / f"{name}.parquet" for name in models]
    if not all(file.is_file() for file in files) or not any(texts.glob("*.parquet")):
        return None
    if not all(set(pq.read_schema(file).names) >= COLUMNS for file in files):
        return None
    with _connected() as database:
        _differing(database, files)
        (rows,) = database.execute(f"SELECT count(*) FROM read_parquet({quoted(files[0])})").fetchall()[0]
        counts = dict(database.execute("SELECT kind, count(*) FROM differing GROUP BY kind").fetchall())
        counts = {kind: counts.get(kind, 0) for kind in ("first", "second", "neither")}
        # Where only the first is right, it is the second whose mistakes are listed.
        most = {"first": LISTS["second"], "second": LISTS["first"], "neither": LISTS["neither"]}
        shown = {kind: _rows(database, kind, most[kind], texts) for kind, found in counts.items() if found}
    return Disagreement(models, rows, counts, shown)


def confusion(predictions: Path, classes: int) -> list[list[int]] | None:
    """How many rows of each actual class (first index) were predicted as which; None without the file."""
    if not predictions.is_file():
        return None
    found = [[0] * classes for _ in range(classes)]
    with _connected() as database:
        query = f"SELECT label, prediction, count(*) FROM read_parquet({quoted(predictions)}) GROUP BY ALL"
        for actual, predicted, rows in database.execute(query).fetchall():
            found[actual][predicted] = rows
    return found


@contextmanager
def _connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as spill, duckdb.connect() as database:
        database.execute(f"SET memory_limit = '{MEMORY}'")
        database.execute("SET threads = 2")
        database.execute("SET autoinstall_known_extensions = false")
        database.execute(f"SET temp_directory = {quoted(Path(spill))}")
        yield database


def _differing(database: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> None:
    """The table ``differing``: rows with two predictions that aren't both right, and ``wrong``, the confidence of the
    worse mistake."""
    first, second = (f"read_parquet({quoted(file)})" for file in files)
    database.execute(f"""
        CREATE TABLE differing AS
        SELECT a.row, a.actual, a."group", a.predicted AS first, b.predicted AS second,
            a.confidence AS first_confidence, b.confidence AS second_confidence,
            CASE WHEN a."right" THEN 'first' WHEN b."right" THEN 'second' ELSE 'neither' END AS kind,
            greatest(if(a."right", 0, a.confidence), if(b."right", 0, b.confidence)) AS wrong
        FROM {first} a JOIN {second} b USING (row)
        WHERE a.predicted <> b.predicted AND NOT (a."right" AND b."right")""")


def _rows(database: duckdb.DuckDBPyConnection, kind: str, most: int, texts: Path) -> list[Row]:
    columns = [
        f"array_to_string(t.{column}, ' ')" if column == TOKENS else f"t.{column}" for column in input_columns(texts)
    ]
    text = f"concat_ws('{BETWEEN}', {', '.join(columns)})"
    found = database.execute(
        f"""SELECT d.*, left({text}, {LONGEST + 1}) AS text
        FROM (SELECT * FROM differing WHERE kind = ? ORDER BY wrong DESC NULLS LAST, row LIMIT {most}) d
        LEFT JOIN read_parquet({quoted(texts / "*.parquet")}) t USING (row) ORDER BY d.wrong DESC NULLS LAST, d.row""",
        [kind],
    ).fetchall()
    return [
        Row(row, _cut(text or ""), group, _cut(actual), (_cut(first), _cut(second)), (confidence, other))
        for row, actual, group, first, second, confidence, other, _, _, text in found
    ]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()}…"
