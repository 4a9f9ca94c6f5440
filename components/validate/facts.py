"""The row-facts table: what is known of every row, computed out of core in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from components.errors import UserError
from components.params.data import Data
from components.validate.shards import write_shards

MOST_LABELS = 1000
SPLITS = ("train", "validation", "test", "unlabelled")
_ORDER = "ORDER BY list_position(['train', 'validation', 'test', 'unlabelled'], split), row"

FACTS = pa.schema(
    [
        pa.field("split", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("source", pa.string()),
        pa.field("label", pa.string()),
        pa.field("group", pa.string()),
        pa.field("document", pa.string()),
        pa.field("characters", pa.int32()),
        pa.field("tokens", pa.int32()),
        pa.field("missing_text", pa.bool_()),
        pa.field("missing_label", pa.bool_()),
        pa.field("blank", pa.bool_()),
        pa.field("damaged", pa.bool_()),
        pa.field("unknown_label", pa.bool_()),
        pa.field("duplicate_exact", pa.bool_()),
        pa.field("duplicate", pa.bool_()),
        pa.field("conflicting", pa.bool_()),
        pa.field("stands_in_test", pa.bool_()),
        pa.field("stands_in_validation", pa.bool_()),
        pa.field("text_in_test", pa.bool_()),
        pa.field("text_in_validation", pa.bool_()),
        pa.field("document_in_test", pa.bool_()),
        pa.field("document_in_validation", pa.bool_()),
        pa.field("truncated", pa.bool_()),
        pa.field("set_aside", pa.bool_()),
        pa.field("near_duplicate", pa.bool_()),
        pa.field("used", pa.bool_()),
    ]
)
SPLIT = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("label", pa.int32()),
        pa.field("group", pa.string()),
        pa.field("document", pa.string()),
    ]
)


def known_labels(database: duckdb.DuckDBPyConnection, data: Data) -> list[str]:
    """The labels of params.yaml in their order, or those of the training file, sorted.

    Raises:
        UserError: the training file has fewer than 2 labels, or so many that they can't be classes.
    """
    if data.labels is not None:
        return list(data.labels)
    query = "SELECT DISTINCT label FROM measured WHERE source = 'train' AND label IS NOT NULL ORDER BY label"
    found = [label for (label,) in database.execute(f"{query} LIMIT {MOST_LABELS + 1}").fetchall()]
    if 2 <= len(found) <= MOST_LABELS:
        return found
    number = f"only {len(found)}" if len(found) < 2 else f"more than {MOST_LABELS}"
    raise UserError(
        f"{data.train} has {number} different labels in the column '{data.columns.label}': {', '.join(found[:5])}"
        f"{' ...' if len(found) > 5 else ''}",
        "Name the column of the classes in data.columns.label; classification needs at least 2.",
        "data",
    )


def compute_facts(database: duckdb.DuckDBPyConnection, labels: Sequence[str], max_length: int) -> None:
    """Make the table ``facts`` (columns of ``FACTS``) from ``measured`` and the tables ``placed`` and ``near``.

    Flags of duplicates mark all but the first occurrence within a split, those of normalised texts
    (``duplicate``) include the exact ones. ``stands_in_*`` marks a row whose normalised text also stands in
    that held-out split, ``document_in_*`` one whose document does, ``text_in_*`` a pair one of whose texts stands in a
    pair there. Missing and blank texts are neither duplicates
    nor leaks. ``set_aside`` marks pool rows that a split made here keeps out, ``near_duplicate`` those that nearly
    repeat a test row, ``used`` those of the canonical splits.
    """
    database.execute(
        "CREATE TABLE labels AS SELECT unnest($names) AS label, unnest(range(len($names))) AS index",
        {"names": list(labels)},
    )
    database.execute("""
        CREATE TABLE drawn AS
        SELECT split, set_aside, split = 'unlabelled' AND row IN (SELECT row FROM near) AS near_duplicate,
               measured.* EXCLUDE (text, text_pair),
               text IS NULL OR (len(forms) > 0 AND text_pair IS NULL) AS missing_text,
               split <> 'unlabelled' AND label IS NULL AS missing_label,
               label IS NOT NULL AND label NOT IN (SELECT label FROM labels) AS unknown_label
        FROM measured JOIN placed USING (source, row)
    """)
    database.execute(_FACTS, {"max_length": max_length})


_FACTS = """
    CREATE TABLE facts AS
    WITH texts_of_test AS (SELECT unnest(forms) FROM drawn WHERE split = 'test' AND same_form IS NOT NULL),
         texts_of_validation AS (SELECT unnest(forms) FROM drawn WHERE split = 'validation' AND same_form IS NOT NULL)
    SELECT
        split, row, source, label, coalesce("group", 'all') AS "group",
        coalesce(document, 'row:' || source || ':' || row) AS document, characters, tokens, missing_text,
        missing_label, blank, damaged, unknown_label,
        same_text IS NOT NULL AND row_number() OVER (PARTITION BY split, same_text ORDER BY row) > 1 AS duplicate_exact,
        same_form IS NOT NULL AND row_number() OVER forms > 1 AS duplicate,
        same_form IS NOT NULL AND coalesce(min(label) OVER same <> max(label) OVER same, false) AS conflicting,
        NOT set_aside AND split <> 'test' AND coalesce(same_form IN (
            SELECT same_form FROM drawn WHERE split = 'test' AND same_form IS NOT NULL), false) AS stands_in_test,
        NOT set_aside AND split IN ('train', 'unlabelled') AND coalesce(same_form IN (
            SELECT same_form FROM drawn WHERE split = 'validation' AND same_form IS NOT NULL), false)
            AS stands_in_validation,
        NOT set_aside AND split <> 'test' AND coalesce(
            forms[1] IN (FROM texts_of_test) OR forms[2] IN (FROM texts_of_test), false) AS text_in_test,
        NOT set_aside AND split IN ('train', 'unlabelled') AND coalesce(
            forms[1] IN (FROM texts_of_validation) OR forms[2] IN (FROM texts_of_validation), false)
            AS text_in_validation,
        NOT set_aside AND split <> 'test' AND coalesce(document IN (
            SELECT document FROM drawn WHERE split = 'test' AND document IS NOT NULL), false) AS document_in_test,
        NOT set_aside AND split IN ('train', 'unlabelled') AND coalesce(document IN (
            SELECT document FROM drawn WHERE split = 'validation' AND document IS NOT NULL), false)
            AS document_in_validation,
        tokens > $max_length AS truncated,
        set_aside,
        near_duplicate,
        NOT (set_aside OR near_duplicate OR missing_text OR missing_label OR unknown_label) AS used
    FROM drawn
    WINDOW forms AS (PARTITION BY split, same_form ORDER BY row),
           same AS (PARTITION BY split, same_form)
"""


def write_facts(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the facts as Parquet shards, by split and row."""
    columns = ", ".join(f'"{name}"' for name in FACTS.names)
    write_shards(database.sql(f"SELECT {columns} FROM facts {_ORDER}").to_arrow_reader(), FACTS, folder)


def write_splits(database: duckdb.DuckDBPyConnection, output: Path, paired: bool = False) -> dict[str, int]:
    """Write the canonical splits, one folder each, by row; the unlabelled pool too, if only with 0 rows.

    ``paired`` rows have a column ``text_pair`` after ``text``.

    Returns:
        rows of each split.
    """
    schema = SPLIT.insert(2, pa.field("text_pair", pa.string())) if paired else SPLIT
    texts = "text, text_pair" if paired else "text"
    query = f"""
        SELECT row, {texts}, index::INTEGER AS label, facts."group", facts.document
        FROM facts JOIN (SELECT source, row, {texts} FROM measured) USING (source, row) LEFT JOIN labels USING (label)
        WHERE used AND split = $split ORDER BY row
    """
    return {
        split: write_shards(database.sql(query, params={"split": split}).to_arrow_reader(), schema, output / split)
        for split in SPLITS
    }


def groups_of_training(database: duckdb.DuckDBPyConnection) -> list[str]:
    """The groups of the training rows that are used, sorted."""
    query = """SELECT DISTINCT "group" FROM facts WHERE split = 'train' AND used ORDER BY "group" """
    return [group for (group,) in database.execute(query).fetchall()]


def summary(database: duckdb.DuckDBPyConnection, max_length: int) -> dict[str, Any]:
    """Counts for the report: rows, classes, groups, rows left out, and lengths in tokens, by split.

    Lengths are counted in 20 bins of an equal width; the last one takes all that is longer.
    """
    width = max(1, max_length // 16)
    return {
        "rows": _counts(database, "count(*)"),
        "used": _counts(database, "count(*) FILTER (used)"),
        "set_aside": _counts(database, "count(*) FILTER (set_aside)"),
        "duplicates_exact": _counts(database, "count(*) FILTER (duplicate_exact)"),
        "near_duplicates": _counts(database, "count(*) FILTER (near_duplicate)"),
        "classes": _table(database, "label"),
        "groups": _table(database, '"group"'),
        "tokens": {
            "width": width,
            "bins": _table(database, f"least(tokens // {width}, 19)"),
            "median": _counts(database, "quantile_disc(tokens, 0.5)"),
            "p95": _counts(database, "quantile_disc(tokens, 0.95)"),
            "max": _counts(database, "max(tokens)"),
        },
    }


def _counts(database: duckdb.DuckDBPyConnection, expression: str) -> dict[str, int]:
    return dict(database.execute(f"SELECT split, {expression} FROM facts GROUP BY split {_BY_SPLIT}").fetchall())


_BY_SPLIT = _ORDER.removesuffix(", row")


def _table(database: duckdb.DuckDBPyConnection, key: str) -> dict[str, dict[str, int]]:
    """Rows by split and key, of the 50 most frequent keys of a split."""
    rows = database.execute(f"""
        SELECT split, {key} AS key, count(*) AS n FROM facts WHERE NOT set_aside GROUP BY 1, 2
        QUALIFY row_number() OVER (PARTITION BY split ORDER BY n DESC, key) <= 50 {_BY_SPLIT}, key
    """).fetchall()
    table: dict[str, dict[str, int]] = {}
    for split, found, n in rows:
        table.setdefault(split, {})[str(found) if found is not None else ""] = n
    return table
