"""Judgements of a model that isn't trained here: read, checked, made comparable, matched with the texts they are of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from components.params.data import Data, Judgements
from components.params.section import nearest
from components.validate.database import quoted
from components.validate.formats import as_text
from components.validate.measure import form_digest
from components.validate.problems import Problems
from components.validate.reading import read_values
from components.validate.shards import write_shards
from components.validate.tables import judgements_table

JUDGEMENTS = pa.schema([pa.field("text", pa.string()), pa.field("probabilities", pa.list_(pa.float64()))])
_READ = pa.schema([pa.field("form", pa.binary()), pa.field("probabilities", pa.list_(pa.float64()))])
_SUM_TOLERANCE = 0.01


def read_judgements(
    database: duckdb.DuckDBPyConnection, data: Data, root: Path, labels: Sequence[str], scratch: Path
) -> dict[str, Any] | None:
    """Make the table ``judged`` (form, probabilities): the mean of what was said of each normalised text.

    Args:
        database: with ``measured`` and ``facts``, for what is covered.
        data: names the file, if there is one.
        root: what the file is named from.
        labels: the classes, in the order of the probabilities.
        scratch: an existing folder for what is in between.

    Returns:
        for the report: file, rows, unjudged (rows without a judgement), off (rows whose probabilities were more than
        1% off a sum of 1), repeated (texts judged more than once), covered and of (used rows by split), unmatched
        (texts that no such row has). None without a file.

    Raises:
        UserError: the file can't be read, or rows that can't be used, with their numbers; kind data.
    """
    database.execute("CREATE TABLE judged (form BLOB, probabilities DOUBLE[], judgements BIGINT)")
    if data.judgements is None:
        return None
    read = scratch / "judgements.parquet"
    counts = _read(data.judgements, root, labels, read)
    _combine(database, read, scratch / "judged.parquet")
    return {"file": data.judgements.file, **counts, **_coverage(database)}


def write_judgements(database: duckdb.DuckDBPyConnection, folder: Path, paired: bool = False) -> None:
    """Write ``text`` (``text_pair``) and ``probabilities`` of every judged text of the training, pool and validation
    rows, by text."""
    schema = JUDGEMENTS.insert(1, pa.field("text_pair", pa.string())) if paired else JUDGEMENTS
    texts = "text, text_pair" if paired else "text"
    rows = database.sql(f"""
        SELECT {texts}, any_value(probabilities) AS probabilities
        FROM ({_USED}) JOIN judged ON form = same_form GROUP BY {texts} ORDER BY {texts}
    """)
    write_shards(rows.to_arrow_reader(), schema, folder)


_USED = """SELECT facts.split, text, text_pair, measured.same_form FROM facts JOIN measured USING (source, row)
           WHERE used AND split IN ('train', 'unlabelled', 'validation')"""


def _read(judgements: Judgements, root: Path, labels: Sequence[str], target: Path) -> dict[str, int]:
    """Write the judgements as they are read, as probabilities, and count them."""
    table = judgements_table(judgements, root)
    reader = _Reader(judgements, labels, Problems(table))
    with pq.ParquetWriter(target, _READ, compression="zstd") as writer:
        for rows in read_values(table):
            found = list(reader.read(rows.first, rows.values))
            columns = [list(column) for column in zip(*found, strict=True)] or [[], []]
            writer.write_batch(pa.record_batch(columns, schema=_READ))
    reader.problems.stop()
    return {"rows": reader.rows, "unjudged": reader.unjudged, "off": reader.off}


class _Reader:
    """Turns the values of rows into probabilities, and counts what is worth telling."""

    def __init__(self, judgements: Judgements, labels: Sequence[str], problems: Problems) -> None:
        self.by_label = judgements.columns.probabilities is None
        self.roles = ("text", "text_pair") if judgements.columns.text_pair else ("text",)
        self.confidence = judgements.confidence
        self.labels = list(labels)
        self.places = {label: place for place, label in enumerate(labels)}
        self.problems = problems
        self.rows = self.unjudged = self.off = 0

    def read(self, first: int, values: Mapping[str, list[Any]]) -> Iterator[tuple[bytes, list[float]]]:
        """Digests of normalised texts and probabilities of the rows that can be used."""
        said = values["label" if self.by_label else "probabilities"]
        for row, (given, judgement) in enumerate(zip(self._inputs(values), said, strict=True), first):
            self.rows += 1
            if not all(text.strip() for text in given):
                self.problems.add("without a text", row)
            elif judgement is None or judgement == "":
                self.unjudged += 1
            else:
                found = self._of_label(row, judgement) if self.by_label else self._of_mapping(row, judgement)
                if found is not None:
                    yield form_digest(*given), found

    def _inputs(self, values: Mapping[str, list[Any]]) -> Iterator[tuple[str, ...]]:
        """The text of each row, or both of a pair."""
        named = [values[role] for role in self.roles]
        return (tuple(as_text(value) or "" for value in row) for row in zip(*named, strict=True))

    def _of_label(self, row: int, judgement: Any) -> list[float] | None:
        """The confidence on the label, the rest shared evenly."""
        label = as_text(judgement) or ""
        if label not in self.places:
            self._unknown(row, label)
            return None
        rest = (1 - self.confidence) / (len(self.labels) - 1)
        return [self.confidence if known == label else rest for known in self.labels]

    def _of_mapping(self, row: int, judgement: Any) -> list[float] | None:
        """The numbers of a mapping, 0 for labels it leaves out, scaled to a sum of 1."""
        mapping = _mapping(judgement)
        if mapping is None:
            self.problems.add("without a mapping of labels to numbers", row, f"{judgement!r:.40}")
            return None
        weights = [0.0] * len(self.labels)
        for label, value in mapping.items():
            if label not in self.places:
                self._unknown(row, str(label))
                return None
            weight = 0.0 if value is None else _number(value)  # Parquet gives null for a label that is left out
            if weight is None:
                self.problems.add("with a value that is no number of at least 0", row, f"{label!r}: {value!r:.20}")
                return None
            weights[self.places[label]] = weight
        return self._scaled(row, weights)

    def _scaled(self, row: int, weights: list[float]) -> list[float] | None:
        largest = max(weights)
        if largest == 0:
            self.problems.add("with probabilities that sum to 0", row)
            return None
        self.off += abs(sum(weights) - 1) > _SUM_TOLERANCE
        shares = [weight / largest for weight in weights]  # so that no sum is too large for a number
        total = math.fsum(shares)
        return [share / total for share in shares]

    def _unknown(self, row: int, label: str) -> None:
        self.problems.add("with an unknown label", row, f"{label!r:.40}{nearest(label, self.labels[:20])}")


def _mapping(judgement: Any) -> dict[Any, Any] | None:
    """A mapping of labels, from a mapping, a list of pairs (as Parquet's maps are read) or JSON."""
    if isinstance(judgement, str):
        try:
            judgement = json.loads(judgement)
        except (ValueError, RecursionError):
            return None
    if isinstance(judgement, list) and all(isinstance(pair, tuple) for pair in judgement):
        judgement = dict(judgement)
    return judgement if isinstance(judgement, dict) else None


def _number(value: Any) -> float | None:
    """A finite number that isn't negative."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _combine(database: duckdb.DuckDBPyConnection, read: Path, target: Path) -> None:
    """Fill ``judged``. The sums are exact (math.fsum), so the order of the rows changes no bit of them."""
    rows = database.sql(f"SELECT form, list(probabilities) AS said FROM read_parquet({quoted(read)}) GROUP BY form")
    schema = _READ.append(pa.field("judgements", pa.int64()))
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in rows.to_arrow_reader(8192):
            said = batch["said"].to_pylist()
            means = [[math.fsum(column) / len(each) for column in zip(*each, strict=True)] for each in said]
            writer.write_batch(pa.record_batch([batch["form"], means, [len(each) for each in said]], schema=schema))
    database.execute(f"INSERT INTO judged SELECT * FROM read_parquet({quoted(target)})")


def _coverage(database: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    found = database.execute(f"""
        SELECT split, count(*), count(*) FILTER (same_form IN (SELECT form FROM judged))
        FROM ({_USED}) GROUP BY split ORDER BY split
    """).fetchall()
    ((repeated, unmatched),) = database.execute(f"""
        SELECT count(*) FILTER (judgements > 1),
               count(*) FILTER (form NOT IN (SELECT same_form FROM ({_USED}) WHERE same_form IS NOT NULL))
        FROM judged
    """).fetchall()
    return {
        "of": {split: rows for split, rows, _ in found},
        "covered": {split: covered for split, _, covered in found},
        "repeated": repeated,
        "unmatched": unmatched,
    }
