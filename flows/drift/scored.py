"""The log of scored rows (:mod:`flows.inference.log`), read out of core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.ml.rows.inputs import PAIR
from components.validate.database import quoted
from flows.inference import log

CLOCKS = timedelta(hours=1)
"""By so much the clock that dated a row may be ahead of the one that named its part."""


@dataclass(frozen=True)
class Logged:
    """How many rows of the window each model has, by name: the watched one's, and the others'."""

    rows: int
    first: datetime | None
    last: datetime | None
    others: dict[str, int]


def files(root: Path, since: datetime) -> list[Path]:
    """The log's files that can hold rows from ``since`` on, in order; older ones aren't opened.

    Raises:
        UserError: one of them is damaged, or isn't part of such a log (``log``).
    """
    found = log.read(root, since - CLOCKS)  # a part is named after it was scored, so older names have older rows
    for path in found:
        _check(path)
    return found


def _check(path: Path) -> None:
    try:
        there = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} can't be read: {str(error).splitlines()[0][:200]}",
            "It is damaged: move it out of the log; its rows are lost to monitoring.",
            "log",
        ) from error
    columns = [name for name in log.schema().names if name != PAIR]  # which came later
    if lacking := [name for name in columns if name not in there]:
        raise UserError(
            f"Expected in {path} the columns {', '.join(columns)}; it lacks {', '.join(lacking)}.",
            "Move it out of the log: `stillhouse` didn't write it.",
            "log",
        )


def opened(
    database: duckdb.DuckDBPyConnection, found: Sequence[Path], content: str, since: datetime, until: datetime
) -> Logged:
    """Make the view ``mine`` of the watched model's rows in the window; tells how many rows each model has there.

    Args:
        database: where the view is made.
        found: the log's files; with none the view is empty.
        content: the hash of the watched model.
        since, until: the window; the first is part of it, the second isn't.
    """
    database.execute("SET TimeZone = 'UTC'")
    source = f"read_parquet([{', '.join(quoted(path) for path in found)}], union_by_name = true)"
    pair = PAIR if any(PAIR in pq.read_schema(path).names for path in found) else f"NULL AS {PAIR}"
    if not found:
        database.register("nothing", log.schema().empty_table())
        source = "nothing"
    database.execute(
        f"""
        CREATE VIEW scored AS SELECT text, {pair}, id, label, score, model, content, "at" AS scored_at FROM {source}
        WHERE "at" >= '{since.isoformat()}'::TIMESTAMPTZ AND "at" < '{until.isoformat()}'::TIMESTAMPTZ
            AND text IS NOT NULL
        """
    )
    database.execute(f"CREATE VIEW mine AS SELECT * FROM scored WHERE content = {_text(content)}")
    rows, first, last = database.execute(
        "SELECT count(*), epoch_us(min(scored_at)), epoch_us(max(scored_at)) FROM mine"
    ).fetchall()[0]
    by_model = (
        "SELECT model, count(*) FROM scored WHERE content IS DISTINCT FROM $content GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    others = database.execute(by_model, {"content": content}).fetchall()
    named = {str(model): int(number) for model, number in others}
    return Logged(int(rows), _time(first), _time(last), named)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC)
