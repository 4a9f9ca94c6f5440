"""The classes that targets name: which there are, and how many rows name each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from components.errors import UserError
from components.params.data import Data
from components.validate.faults import refuse_faults
from components.validate.tables import split_table

MOST_LABELS = 1000


def known_names(database: duckdb.DuckDBPyConnection, data: Data) -> list[str]:
    """The classes that targets may name: those of params.yaml in their order, or those of the training file, sorted.

    Raises:
        UserError: the training file has fewer than the task needs, or so many that they can't be classes.
    """
    if data.labels is not None:
        return list(data.labels)
    query = "SELECT DISTINCT unnest(names) AS name FROM measured WHERE source = 'train' ORDER BY name"
    found = [name for (name,) in database.execute(f"{query} LIMIT {MOST_LABELS + 1}").fetchall()]
    least = data.kind.least_labels
    if not least or least <= len(found) <= MOST_LABELS:
        return found
    if len(found) < least:
        refuse_faults(database, split_table(data, "train", Path()))
    raise no_classes(data.train, data.columns.of(data.kind.target), found, least, "data.columns", data.kind.target)


def no_classes(
    file: str, column: str | None, found: Sequence[str], least: int, columns_key: str, target: str
) -> UserError:
    """What is said of a column with too few labels, or too many for classes."""
    number = f"only {len(found)}" if len(found) < least else f"more than {MOST_LABELS}"
    return UserError(
        f"{file} has {number} different labels in the column '{column}': {', '.join(found[:5])}"
        f"{' ...' if len(found) > 5 else ''}",
        f"Name the column of the classes in {columns_key}.{target}; classification needs at least {least}.",
        "data",
    )


def class_counts(database: duckdb.DuckDBPyConnection, split: str) -> list[dict[str, Any]]:
    """How many rows of a split name each class, and their share of the rows that name no unknown one."""
    query = """
        WITH known AS (SELECT row, names FROM drawn WHERE split = $split AND names IS NOT NULL AND NOT unknown_label)
        SELECT label, count(row) AS rows, count(row) / greatest((SELECT count(*) FROM known), 1) AS share
        FROM labels LEFT JOIN (SELECT row, unnest(names) AS label FROM known) USING (label)
        GROUP BY label, index ORDER BY index
    """
    found = database.execute(query, {"split": split}).fetchall()
    return [{"label": label, "rows": rows, "share": float(share)} for label, rows, share in found]


def unknown_names(database: duckdb.DuckDBPyConnection, split: str) -> dict[str, int]:
    """The most frequent unknown classes of a split, and how many rows name each."""
    query = """
        SELECT name, count(DISTINCT row) AS n
        FROM (SELECT row, unnest(names) AS name FROM drawn WHERE split = $split AND unknown_label)
        WHERE name NOT IN (SELECT label FROM labels) GROUP BY name ORDER BY n DESC, name LIMIT 5
    """
    return dict(database.execute(query, {"split": split}).fetchall())
