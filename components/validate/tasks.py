"""Other tasks that phases may train beside the project's own: their labels, splits and shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from components.errors import UserError
from components.params.data import Data, Split
from components.params.section import nearest
from components.validate.database import quoted
from components.validate.facts import MOST_LABELS
from components.validate.problems import SHOWN, Problems
from components.validate.shards import write_shards
from components.validate.tables import Table, task_table
from components.validate.task_rows import read_task_rows

_Split = Literal["train", "validation"]
SPLITS: tuple[_Split, ...] = ("train", "validation")
TEXTS, TOKENS = "text-classification", "token-classification"
SCHEMAS = {
    TEXTS: pa.schema(
        [pa.field("row", pa.int64()), pa.field("text", pa.string()), pa.field("label", pa.int32())],
    ),
    TOKENS: pa.schema(
        [
            pa.field("row", pa.int64()),
            pa.field("tokens", pa.list_(pa.string())),
            pa.field("tags", pa.list_(pa.int32())),
        ]
    ),
}
_COLUMNS = {
    TEXTS: "row, pieces[1] AS text, list_position($labels, labels[1]) - 1 AS label",
    TOKENS: """row, pieces AS tokens,
               list_transform(labels, lambda tag: list_position($labels, tag) - 1) AS tags""",
}


def write_tasks(
    database: duckdb.DuckDBPyConnection, data: Data, root: Path, scratch: Path, folder: Path
) -> dict[str, dict[str, Any]]:
    """Write tasks.json and, for each of ``data.tasks``, the shards of NAME/train and NAME/validation.

    Args:
        database: with the table ``drawn``, for the texts of the project's own test rows.
        data: names the files; ``split`` says how validation rows are cut off the training rows if no file gives them.
        root: what the files are named from.
        scratch: an existing folder for what is in between.
        folder: to make and fill.

    Returns:
        by name, for the report: type, files, rows (of each split), labels, and test_texts: how many training rows
        have the text of a test row of the project's own.

    Raises:
        UserError: a file or rows that can't be used, fewer than 2 labels, or validation labels that no training
            row has; kind data.
    """
    folder.mkdir()
    about: dict[str, dict[str, Any]] = {}
    for name in sorted(data.tasks):  # the order in params.yaml doesn't count: DVC doesn't see it either
        about[name] = _write_task(database, name, data, root, scratch, folder / name)
    kinds = {name: {"type": found["type"], "labels": found["labels"]} for name, found in about.items()}
    (folder / "tasks.json").write_text(json.dumps(kinds, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return about


def _write_task(
    database: duckdb.DuckDBPyConnection, name: str, data: Data, root: Path, scratch: Path, folder: Path
) -> dict[str, Any]:
    task = data.tasks[name]
    tables = {split: task_table(name, task, split, root) for split in SPLITS if getattr(task, split) is not None}
    _read(database, tables, scratch)
    labels = _labels(database, tables["train"])
    if "validation" in tables:
        _refuse_unseen(database, tables["validation"], labels)
    else:
        _hold_out(database, tables["train"], data.split)
    return {
        "type": task.type,
        "files": {split: getattr(task, split) for split in tables},
        "rows": {split: _write_split(database, task.type, labels, split, folder / split) for split in SPLITS},
        "labels": labels,
        "test_texts": _test_texts(database),
    }


def _read(database: duckdb.DuckDBPyConnection, tables: Mapping[_Split, Table], scratch: Path) -> None:
    """Make the views ``task_given`` (split, columns of ``READ``) and ``task`` (the same rows in their final splits)."""
    selects = []
    for split, table in tables.items():
        path = scratch / f"task-{split}.parquet"
        read_task_rows(table, path)
        selects.append(f"SELECT '{split}' AS split, * FROM read_parquet({quoted(path)})")
    database.execute(f"CREATE OR REPLACE VIEW task_given AS {' UNION ALL '.join(selects)}")
    database.execute("CREATE OR REPLACE VIEW task AS SELECT * FROM task_given")


def _labels(database: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
    """The labels of the training rows, sorted."""
    query = f"SELECT DISTINCT unnest(labels) FROM task WHERE split = 'train' LIMIT {MOST_LABELS + 1}"
    found = sorted(label for (label,) in database.execute(query).fetchall())
    if 2 <= len(found) <= MOST_LABELS:
        return found
    number = f"only {len(found)}" if len(found) < 2 else f"more than {MOST_LABELS}"
    column = table.columns["tags" if table.lists else "label"]
    raise UserError(
        f"{table.path} ({table.key}) has {number} different labels in the column '{column}': {', '.join(found[:5])}"
        f"{' ...' if len(found) > 5 else ''}",
        f"Name the column of the classes in {table.columns_key}; classification needs at least 2.",
        "data",
    )


def _refuse_unseen(database: duckdb.DuckDBPyConnection, table: Table, labels: list[str]) -> None:
    """Refuse validation rows with a label that no training row has."""
    unseen = """FROM (SELECT row, unnest(labels) AS label FROM task WHERE split = 'validation')
                WHERE NOT list_contains($labels, label)"""
    ((rows,),) = database.execute(f"SELECT count(DISTINCT row) {unseen}", {"labels": labels}).fetchall()
    if rows:
        query = f"SELECT row, min(label) {unseen} GROUP BY row ORDER BY row LIMIT {SHOWN}"
        examples = database.execute(query, {"labels": labels}).fetchall()
        problems = Problems(table)
        shown = [(row, f"{label!r}{nearest(label, labels[:20])}") for row, label in examples]
        problems.add_many("with a label that no training row has", rows, shown)
        problems.stop("Mend these labels, or give training rows that have them.")


def _hold_out(database: duckdb.DuckDBPyConnection, table: Table, split: Split) -> None:
    """Split validation rows off, by whole normalised texts within a class, as ``splits.py`` does for the test."""
    values = {"seed": str(split.seed), "share": split.validation, "by_class": not table.lists}
    database.execute(_HELD_OUT, values)
    ((texts, held_out),) = database.execute("SELECT count(*), count(*) FILTER (held_out) FROM task_texts").fetchall()
    if not 0 < held_out < texts:
        raise UserError(
            f"{table.path} ({table.key}) has one text in all its rows, so no validation rows can be split off.",
            f"Give more rows, or a file of validation rows in {table.key.removesuffix('train')}validation.",
            "data",
        )
    database.execute("""
        CREATE OR REPLACE VIEW task AS
        SELECT CASE WHEN held_out THEN 'validation' ELSE 'train' END AS split, task_given.* EXCLUDE (split)
        FROM task_given JOIN task_texts USING (form)
    """)


# At least one text is held out, and at least one isn't, if there are two.
_HELD_OUT = """
    CREATE OR REPLACE TABLE task_texts AS
    WITH texts AS (
        SELECT form, CASE WHEN $by_class THEN min(labels[1]) ELSE '' END AS stratum, count(*) AS n
        FROM task_given GROUP BY form
    ), lined_up AS (
        SELECT form, (sum(n) OVER line - n / 2) / sum(n) OVER (PARTITION BY stratum) < $share AS within,
               row_number() OVER (ORDER BY md5($seed || ' ' || hex(form)), form) AS place
        FROM texts
        WINDOW line AS (PARTITION BY stratum ORDER BY md5($seed || ' ' || hex(form)), form
                        ROWS UNBOUNDED PRECEDING))
    SELECT form, CASE WHEN NOT bool_or(within) OVER () THEN place = 1 AND count(*) OVER () > 1
                      WHEN bool_and(within) OVER () THEN place < count(*) OVER ()
                      ELSE within END AS held_out
    FROM lined_up
"""


def _write_split(database: duckdb.DuckDBPyConnection, kind: str, labels: list[str], split: str, folder: Path) -> int:
    query = f"SELECT {_COLUMNS[kind]} FROM task WHERE split = $split ORDER BY row"
    reader = database.sql(query, params={"labels": labels, "split": split}).to_arrow_reader()
    return write_shards(reader, SCHEMAS[kind], folder)


def _test_texts(database: duckdb.DuckDBPyConnection) -> int:
    ((rows,),) = database.execute("""
        SELECT count(*) FROM task WHERE split = 'train' AND form IN (
            SELECT same_form FROM drawn WHERE split = 'test' AND same_form IS NOT NULL)
    """).fetchall()
    return int(rows)
