"""Rows that a task can't read, by what is wrong with them."""

from __future__ import annotations

import duckdb

from components.validate.problems import SHOWN, Problems
from components.validate.tables import Table


def refuse_faults(database: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Refuse a training file whose rows can't be read, if any can't.

    Raises:
        UserError: each fault with its first rows.
    """
    problems = Problems(table)
    for what, rows, examples in faults_of(database, "measured", "source", "train"):
        problems.add_many(what, rows, [(row, detail) for row, _, detail in examples])
    problems.stop()


def faults_of(
    database: duckdb.DuckDBPyConnection, table: str, column: str, value: str
) -> list[tuple[str, int, list[tuple[int, str, str]]]]:
    """The kinds of faults of some rows: what, how many rows, and of the first ones row, source and detail."""
    found = database.execute(
        f"""
        SELECT fault.what, count(*),
               list({{row: row, source: source, detail: fault.detail}} ORDER BY source, row)[:$shown]
        FROM (SELECT row, source, unnest(faults) AS fault FROM {table} WHERE "{column}" = $value)
        GROUP BY fault.what ORDER BY min(row), fault.what
        """,
        {"value": value, "shown": SHOWN},
    ).fetchall()
    return [
        (what, rows, [(each["row"], each["source"], each["detail"]) for each in shown]) for what, rows, shown in found
    ]
