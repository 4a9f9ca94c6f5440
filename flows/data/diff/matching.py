"""Pairs the rows of two data versions: unchanged, relabelled, regrouped, moved; what is left was added or removed.

Rows with the same normalised text are alike. They are paired by counts, the nearest likeness first: of three equal
rows in the old version and five in the new one, two were added. Nothing is paired twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

# What two rows must share to be paired, and what such a pair means; in this order.
PASSES = (
    ("unchanged", ("split", "form", "group", "document", "label")),
    ("relabelled", ("split", "form", "group", "document")),
    ("regrouped", ("split", "form", "label")),
    ("relabelled", ("split", "form")),
    ("moved", ("form", "label")),
    ("moved", ("form",)),
)
_ALL = ("split", "form", "group", "document", "label")
_WITHOUT_GROUPS = ("split", "form", "label")


def match(database: duckdb.DuckDBPyConnection, compared: Sequence[str]) -> None:
    """Make the table ``pairs`` and leave in ``left_a`` and ``left_b`` what has no pair.

    Args:
        database: has the view ``rows`` and the table ``given``.
        compared: of group and document, those that both versions have a column for.

    ``pairs`` holds kind, from_split, to_split, from_label, to_label, from_row, to_row (of one such row) and n,
    how many; of the unchanged rows only kind, split and n. Splits whose files are the same aren't looked at.
    """
    database.execute(_PAIRS)
    database.execute(_SAME_FILES)
    columns = {name: name in compared for name in ("group", "document")}
    kept = ", ".join(f'"{name}"' if keep else f'NULL::VARCHAR AS "{name}"' for name, keep in columns.items())
    for side in ("a", "b"):
        database.execute(_COUNTED.format(side=side, kept=kept))
    for kind, key in PASSES:
        if kind == "regrouped":
            _forget_groups(database)
        _pair(database, kind, key)


def _forget_groups(database: duckdb.DuckDBPyConnection) -> None:
    """Count anew without group and document, so that a text met in many documents is one entry."""
    named = ", ".join(_quoted(_WITHOUT_GROUPS))
    for side in ("a", "b"):
        database.execute(f"""
            CREATE OR REPLACE TABLE left_{side} AS
            SELECT *, row_number() OVER () AS id
            FROM (SELECT {named}, sum(n)::BIGINT AS n, max(row) AS row FROM left_{side} GROUP BY {named})
        """)


def _pair(database: duckdb.DuckDBPyConnection, kind: str, key: Sequence[str]) -> None:
    """Lay the rows of each key in a line on both sides; those that lie opposite each other are pairs."""
    alike = " AND ".join(f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in _quoted(key))
    database.execute(f"""
        CREATE OR REPLACE TABLE found AS
        SELECT a.id AS a, b.id AS b, (least(a.stop, b.stop) - greatest(a.start, b.start))::BIGINT AS n
        FROM {_in_line("a", key)} AS a JOIN {_in_line("b", key)} AS b
          ON {alike} AND a.start < b.stop AND b.start < a.stop
    """)
    detailed = kind != "unchanged"
    labels = "a.label, b.label, a.row, b.row" if detailed else "NULL, NULL, NULL, NULL"
    number = "found.n" if detailed else "sum(found.n)"
    database.execute(f"""
        INSERT INTO pairs SELECT '{kind}', a.split, b.split, {labels}, {number}
        FROM found JOIN left_a AS a ON a.id = found.a JOIN left_b AS b ON b.id = found.b
        {"" if detailed else "GROUP BY a.split, b.split"}
    """)
    for side in ("a", "b"):
        database.execute(_TAKE_OUT.format(side=side))


def _in_line(side: str, key: Sequence[str]) -> str:
    order = ", ".join(name for name in ("split", "label") if name not in key) or "id"
    return f"""(
        SELECT *, sum(n) OVER line - n AS start, sum(n) OVER line AS stop FROM left_{side}
        WINDOW line AS (PARTITION BY {", ".join(_quoted(key))} ORDER BY {order} ROWS UNBOUNDED PRECEDING))"""


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def totals(database: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """For each split: ``rows`` in both versions, and how many are unchanged, added, removed, and so on."""
    found: dict[str, dict[str, Any]] = {}
    for split, before, after in database.execute(_ROW_COUNTS).fetchall():
        kinds = ("unchanged", "added", "removed", "relabelled", "regrouped", "moved_in", "moved_out")
        found[split] = {"rows": {"from": before, "to": after}, **dict.fromkeys(kinds, 0)}
    for split, kind, rows in database.execute(_TOTALS).fetchall():
        found[split][kind] = int(rows)
    return found


_PAIRS = """
    CREATE TABLE pairs (kind VARCHAR, from_split VARCHAR, to_split VARCHAR, from_label VARCHAR, to_label VARCHAR,
                        from_row BIGINT, to_row BIGINT, n BIGINT)
"""
_SAME_FILES = """
    CREATE TABLE same AS SELECT split FROM given GROUP BY split, source HAVING count(*) = 2;
    INSERT INTO pairs SELECT 'unchanged', split, split, NULL, NULL, NULL, NULL, count(*)
    FROM rows WHERE side = 'a' AND split IN (SELECT split FROM same) GROUP BY split
"""
_COUNTED = f"""
    CREATE TABLE left_{{side}} AS
    SELECT *, row_number() OVER () AS id
    FROM (SELECT {", ".join(_quoted(_ALL))}, count(*) AS n, max(row) AS row
          FROM (SELECT split, form, {{kept}}, label, row FROM rows
                WHERE side = '{{side}}' AND split NOT IN (SELECT split FROM same))
          GROUP BY {", ".join(_quoted(_ALL))})
"""
_TAKE_OUT = """
    CREATE OR REPLACE TABLE left_{side} AS
    SELECT left_{side}.* REPLACE ((n - coalesce(taken, 0))::BIGINT AS n)
    FROM left_{side} LEFT JOIN (SELECT {side} AS id, sum(n) AS taken FROM found GROUP BY {side}) USING (id)
    WHERE n > coalesce(taken, 0)
"""
_ROW_COUNTS = """
    SELECT split, count(*) FILTER (side = 'a'), count(*) FILTER (side = 'b') FROM rows GROUP BY split
    ORDER BY list_position(['train', 'validation', 'test', 'unlabelled'], split)
"""
_TOTALS = """
    SELECT from_split, kind, sum(n) FROM pairs WHERE kind <> 'moved' GROUP BY ALL
    UNION ALL SELECT from_split, 'moved_out', sum(n) FROM pairs WHERE kind = 'moved' GROUP BY ALL
    UNION ALL SELECT to_split, 'moved_in', sum(n) FROM pairs WHERE kind = 'moved' GROUP BY ALL
    UNION ALL SELECT split, 'removed', sum(n) FROM left_a GROUP BY ALL
    UNION ALL SELECT split, 'added', sum(n) FROM left_b GROUP BY ALL
"""
