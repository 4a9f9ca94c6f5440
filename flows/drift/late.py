"""Labels that came after the scoring: a file of them is matched with the log, and the model's accuracy counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from components.errors import UserError
from components.ml.rows.inputs import PAIR
from components.validate.database import quoted
from flows.drift.said import Hits

_READERS = {
    ".parquet": "read_parquet({path})",
    ".csv": "read_csv({path}, all_varchar = true, header = true)",
    ".tsv": "read_csv({path}, all_varchar = true, header = true, delim = '\t')",
    ".jsonl": "read_json({path}, format = 'newline_delimited')",
}
SHOWN = 5
_PAIR = "text || chr(10) || text_pair"
"""What a pair is found again by."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Late:
    """What became of the labels in the file, which name rows by ``key``: id or text.

    ``given`` keys have a label, ``conflicting`` of them several different ones: these count for nothing, as do the
    ``unmatched``, which the log lacks; ``unknown`` rows have a label that the model never gives: they count as wrong.
    """

    key: str
    given: int
    conflicting: int
    unmatched: int
    unknown: int
    examples: dict[str, list[str]]
    hits: Hits | None

    def told(self, before: Hits | None, *, tested: bool) -> dict[str, Any]:
        """The same as data; ``before`` is what the model got right of the test rows."""
        hits = self.hits
        kept = ("key", "given", "conflicting", "unmatched", "unknown", "examples")
        return {
            "rows": hits.rows if hits else 0,
            "accuracy": hits.accuracy if hits else None,
            "ci": list(hits.interval(CONFIDENCE)) if hits else None,
            "confidence": CONFIDENCE,
            "reference": before.accuracy if before else None,
            "tested": tested,
        } | {name: getattr(self, name) for name in kept}


def match(database: duckdb.DuckDBPyConnection, path: Path, labels: Sequence[str]) -> Late:
    """Match the labels of a file with the rows in the view ``mine``; of an id or text that was scored several times,
    the newest row counts.

    Args:
        database: has the view ``mine`` (see :mod:`flows.drift.scored`).
        path: a Parquet, CSV, TSV or JSON lines file with the columns id or text, and label.
        labels: those that the model gives.

    Raises:
        UserError: the file can't be read, lacks a column, or has only labels that the model doesn't give (``data``).
    """
    ((paired,),) = database.execute("SELECT coalesce(bool_or(text_pair IS NOT NULL), false) FROM mine").fetchall()
    name, key = _read(database, path, paired)
    _check_labels(database, path, labels)
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE matched AS
        SELECT key, kind, newest.label = given.label AS hit, given.label AS actual FROM
            (SELECT key, min(label) AS label, if(count(DISTINCT label) > 1, 'conflicting', 'sound') AS kind
             FROM late GROUP BY key) AS given
        LEFT JOIN (SELECT ({key}) AS key, arg_max(label, scored_at) AS label FROM mine
                   WHERE ({key}) IN (SELECT key FROM late) GROUP BY 1) AS newest USING (key)
        """
    )
    rows, right, given, conflicting, unmatched, unknown = database.execute(
        _COUNTS, {"labels": list(labels)}
    ).fetchall()[0]
    conditions = {"conflicting": "kind = 'conflicting'", "unmatched": "kind = 'sound' AND hit IS NULL"}
    examples = {name: _examples(database, condition) for name, condition in conditions.items()}
    hits = Hits(int(right), int(rows)) if rows else None
    return Late(name, int(given), int(conflicting), int(unmatched), int(unknown), examples, hits)


_COUNTS = """
    SELECT count(*) FILTER (kind = 'sound' AND hit IS NOT NULL), count(*) FILTER (kind = 'sound' AND hit),
           count(*), count(*) FILTER (kind = 'conflicting'), count(*) FILTER (kind = 'sound' AND hit IS NULL),
           count(*) FILTER (kind = 'sound' AND hit IS NOT NULL AND NOT list_contains($labels, actual))
    FROM matched
"""


def _read(database: duckdb.DuckDBPyConnection, path: Path, paired: bool) -> tuple[str, str]:
    """The table ``late`` of keys and labels as text; the key's name, and the key in SQL."""
    form = _READERS.get(path.suffix.lower())
    if form is None:
        raise unreadable(path, f"expected one of {', '.join(_READERS)}")
    if not path.is_file():
        raise unreadable(path, "there is no such file")
    source = form.format(path=quoted(path))
    try:
        columns = [str(row[0]) for row in database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
        name = next((name for name in ("id", "text") if name in columns), None)
        if name is None or "label" not in columns or (name == "text" and paired and PAIR not in columns):
            texts = "text and text_pair" if paired else "text"
            raise unreadable(path, f"expected the columns id or {texts}, and label; it has {', '.join(columns)}")
        key = _PAIR if paired and name == "text" else name
        database.execute(
            f"CREATE OR REPLACE TEMP TABLE late AS SELECT ({key})::VARCHAR AS key, label::VARCHAR AS label "
            f"FROM {source} WHERE ({key}) IS NOT NULL AND label IS NOT NULL"
        )
    except duckdb.Error as error:
        raise unreadable(path, str(error).splitlines()[0][:300]) from error
    return name, key


def unreadable(path: Path, why: str) -> UserError:
    return UserError(
        f"The labels in {path} can't be read: {why}.",
        "Give a Parquet, CSV, TSV or JSON lines file with the columns id (or text) and label.",
        "data",
    )


def _check_labels(database: duckdb.DuckDBPyConnection, path: Path, labels: Sequence[str]) -> None:
    """Labels by other names, such as numbers, would make every row wrong."""
    found = [str(row[0]) for row in database.execute("SELECT DISTINCT label FROM late ORDER BY 1 LIMIT 20").fetchall()]
    known = database.execute("SELECT count(*) FROM late WHERE list_contains($1, label)", [list(labels)]).fetchall()
    if not found:
        raise unreadable(path, "no row has a label")
    if not known[0][0]:
        raise UserError(
            f"Expected in {path} the labels {', '.join(labels)}; it has {', '.join(found[:SHOWN])}.",
            "Give them the names that params.yaml has under data.labels.",
            "data",
        )


def _examples(database: duckdb.DuckDBPyConnection, condition: str) -> list[str]:
    found = database.execute(f"SELECT key[:80] FROM matched WHERE {condition} ORDER BY key LIMIT {SHOWN}").fetchall()
    return [str(row[0]) for row in found]
