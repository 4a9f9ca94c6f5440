"""The row-facts table: what is known of every row, computed out of core in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from components.ml.tasks.task import Task
from components.validate.canonical import BATCH_ROWS, canonical, layout
from components.validate.shards import write_shards

USUAL_SHARE = 0.01
"""A script that fewer of the training rows are written in is another one than the training rows'."""
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
        pa.field("faulty", pa.bool_()),
        pa.field("script", pa.string()),
        pa.field("other_script", pa.bool_()),
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


def compute_facts(database: duckdb.DuckDBPyConnection, names: Sequence[str], max_length: int) -> None:
    """Make the table ``facts`` (columns of ``FACTS``) from ``measured`` and the tables ``placed`` and ``near``.

    Flags of duplicates mark all but the first occurrence within a split, those of normalised texts
    (``duplicate``) include the exact ones. ``stands_in_*`` marks a row whose normalised text also stands in
    that held-out split, ``document_in_*`` one whose document does, ``text_in_*`` a pair one of whose texts stands in a
    pair there. Missing and blank texts are neither duplicates nor leaks. ``unknown_label`` marks rows whose targets
    name other classes than ``names``, ``faulty`` those that the task can't read (which then lack neither text nor
    label), ``other_script`` those of other splits than training that are mainly written in a script that fewer than 1%
    of the training rows are written in, if only in part. ``set_aside`` marks pool rows that a split made here keeps
    out, ``near_duplicate`` those that nearly repeat a test row, ``used`` those of the canonical splits.
    """
    database.execute(
        "CREATE TABLE labels AS "
        "SELECT unnest($names::VARCHAR[]) AS label, unnest(range(len($names::VARCHAR[]))) AS index",
        {"names": list(names)},
    )
    database.execute(
        """
        CREATE TABLE drawn AS
        SELECT split, set_aside, split = 'unlabelled' AND row IN (SELECT row FROM near) AS near_duplicate,
               measured.* EXCLUDE (text, text_pair, words, value),
               len(faults) > 0 AS faulty,
               len(faults) = 0 AND (text IS NULL OR (len(forms) > 0 AND text_pair IS NULL)) AS missing_text,
               len(faults) = 0 AND split <> 'unlabelled' AND label IS NULL AS missing_label,
               coalesce(NOT list_has_all($names::VARCHAR[], names), false) AS unknown_label
        FROM measured JOIN placed USING (source, row)
        """,
        {"names": list(names)},
    )
    database.execute(_FACTS, {"max_length": max_length, "usual": USUAL_SHARE})


_FACTS = """
    CREATE TABLE facts AS
    WITH usual_scripts AS (
             SELECT script FROM (SELECT unnest(scripts) AS script FROM drawn WHERE split = 'train') GROUP BY script
             HAVING count(*) >= $usual * (SELECT count(*) FROM drawn WHERE split = 'train' AND len(scripts) > 0)),
         texts_of_test AS (SELECT unnest(forms) FROM drawn WHERE split = 'test' AND same_form IS NOT NULL),
         texts_of_validation AS (SELECT unnest(forms) FROM drawn WHERE split = 'validation' AND same_form IS NOT NULL)
    SELECT
        split, row, source, label, coalesce("group", 'all') AS "group",
        coalesce(document, 'row:' || source || ':' || row) AS document, characters, tokens, missing_text,
        missing_label, blank, damaged, unknown_label, faulty, scripts[1] AS script,
        split <> 'train' AND EXISTS (FROM usual_scripts)
            AND coalesce(scripts[1] NOT IN (SELECT script FROM usual_scripts), false) AS other_script,
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
        NOT (set_aside OR near_duplicate OR missing_text OR missing_label OR unknown_label OR faulty) AS used
    FROM drawn
    WINDOW forms AS (PARTITION BY split, same_form ORDER BY row),
           same AS (PARTITION BY split, same_form)
"""


def write_facts(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the facts as Parquet shards, by split and row."""
    columns = ", ".join(f'"{name}"' for name in FACTS.names)
    write_shards(database.sql(f"SELECT {columns} FROM facts {_ORDER}").to_arrow_reader(), FACTS, folder)


def write_splits(
    database: duckdb.DuckDBPyConnection, task: Task, names: Sequence[str], output: Path, paired: bool = False
) -> dict[str, int]:
    """Write the canonical splits, one folder each, by row; the unlabelled pool too, if only with 0 rows.

    Args:
        database: with ``facts`` and ``measured``.
        task: of the rows.
        names: the classes, in the order of their numbers.
        output: the folder.
        paired: whether rows are two texts.

    Returns:
        rows of each split.
    """
    ((worded,),) = database.execute("SELECT count(words) > 0 FROM measured").fetchall()
    schema, places = layout(task, paired, worded), {name: place for place, name in enumerate(names)}
    query = """
        SELECT row, text, text_pair, words, names, value, facts."group", facts.document
        FROM facts JOIN (SELECT source, row, text, text_pair, words, names, value FROM measured) USING (source, row)
        WHERE used AND split = $split ORDER BY row
    """
    rows = {}
    for split in SPLITS:
        found = database.sql(query, params={"split": split}).to_arrow_reader(BATCH_ROWS)
        rows[split] = write_shards(
            canonical(found, task, places, schema, labelled=split != "unlabelled"), schema, output / split
        )
    return rows


def groups_of_training(database: duckdb.DuckDBPyConnection) -> list[str]:
    """The groups of the training rows that are used, sorted."""
    query = """SELECT DISTINCT "group" FROM facts WHERE split = 'train' AND used ORDER BY "group" """
    return [group for (group,) in database.execute(query).fetchall()]


def summary(database: duckdb.DuckDBPyConnection, max_length: int, by_class: bool = True) -> dict[str, Any]:
    """Counts for the report: rows, classes if ``by_class``, groups, rows left out, and lengths in tokens, by split.

    Lengths are counted in 20 bins of an equal width; the last one takes all that is longer.
    """
    width = max(1, max_length // 16)
    return {
        "rows": _counts(database, "count(*)"),
        "used": _counts(database, "count(*) FILTER (used)"),
        "set_aside": _counts(database, "count(*) FILTER (set_aside)"),
        "duplicates_exact": _counts(database, "count(*) FILTER (duplicate_exact)"),
        "near_duplicates": _counts(database, "count(*) FILTER (near_duplicate)"),
        "classes": _table(database, "name", _NAMED) if by_class else {},
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


# A row that names no class, as of the pool, counts as one of none.
_NAMED = """(SELECT split, set_aside, unnest(CASE WHEN len(names) > 0 THEN names ELSE [NULL] END) AS name FROM drawn)"""


def _table(database: duckdb.DuckDBPyConnection, key: str, rows_of: str = "facts") -> dict[str, dict[str, int]]:
    """Rows by split and key, of the 50 most frequent keys of a split."""
    rows = database.execute(f"""
        SELECT split, {key} AS key, count(*) AS n FROM {rows_of} WHERE NOT set_aside GROUP BY 1, 2
        QUALIFY row_number() OVER (PARTITION BY split ORDER BY n DESC, key) <= 50 {_BY_SPLIT}, key
    """).fetchall()
    table: dict[str, dict[str, int]] = {}
    for split, found, n in rows:
        table.setdefault(split, {})[str(found) if found is not None else ""] = n
    return table
