"""Other tasks that phases may train beside the project's own: their labels, splits and shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import duckdb

from components.errors import UserError
from components.ml.tasks.task import Task
from components.params.data import Data, Split
from components.params.section import nearest
from components.validate.canonical import BATCH_ROWS, canonical, layout
from components.validate.classes import MOST_LABELS, no_classes
from components.validate.database import quoted
from components.validate.problems import SHOWN, Problems
from components.validate.shards import write_shards
from components.validate.tables import Table, is_paired, task_table
from components.validate.task_rows import read_task_rows

_Split = Literal["train", "validation"]
SPLITS: tuple[_Split, ...] = ("train", "validation")


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
    _read(database, tables, task.kind, scratch)
    names = _names(database, tables["train"], task.kind)
    if "validation" in tables:
        _refuse_unseen(database, tables["validation"], names)
    else:
        _hold_out(database, tables["train"], data.split)
    paired = is_paired(tables["train"], task.kind)
    return {
        "type": task.type,
        "files": {split: getattr(task, split) for split in tables},
        "rows": {split: _write_split(database, task.kind, paired, names, split, folder / split) for split in SPLITS},
        "labels": task.kind.labels_of(names),
        "test_texts": _test_texts(database),
    }


def _read(database: duckdb.DuckDBPyConnection, tables: Mapping[_Split, Table], task: Task, scratch: Path) -> None:
    """Make the views ``task_given`` (split, columns of ``READ``) and ``task`` (the same rows in their final splits)."""
    selects = []
    for split, table in tables.items():
        path = scratch / f"task-{split}.parquet"
        read_task_rows(table, task, path)
        selects.append(f"SELECT '{split}' AS split, * FROM read_parquet({quoted(path)})")
    database.execute(f"CREATE OR REPLACE VIEW task_given AS {' UNION ALL '.join(selects)}")
    database.execute("CREATE OR REPLACE VIEW task AS SELECT * FROM task_given")


def _names(database: duckdb.DuckDBPyConnection, table: Table, task: Task) -> list[str]:
    """The classes that the training rows name, sorted."""
    query = f"SELECT DISTINCT unnest(names) FROM task WHERE split = 'train' LIMIT {MOST_LABELS + 1}"
    found = sorted(name for (name,) in database.execute(query).fetchall())
    if not task.least_labels or task.least_labels <= len(found) <= MOST_LABELS:
        return found
    file, column = f"{table.path} ({table.key})", table.columns[task.target]
    raise no_classes(file, column, found, task.least_labels, table.columns_key, task.target)


def _refuse_unseen(database: duckdb.DuckDBPyConnection, table: Table, names: list[str]) -> None:
    """Refuse validation rows with a label that no training row has."""
    unseen = """FROM (SELECT row, unnest(names) AS label FROM task WHERE split = 'validation')
                WHERE NOT list_contains($names::VARCHAR[], label)"""
    ((rows,),) = database.execute(f"SELECT count(DISTINCT row) {unseen}", {"names": names}).fetchall()
    if rows:
        query = f"SELECT row, min(label) {unseen} GROUP BY row ORDER BY row LIMIT {SHOWN}"
        examples = database.execute(query, {"names": names}).fetchall()
        problems = Problems(table)
        shown = [(row, f"{label!r}{nearest(label, names[:20])}") for row, label in examples]
        problems.add_many("with a label that no training row has", rows, shown)
        problems.stop("Mend these labels, or give training rows that have them.")


def _hold_out(database: duckdb.DuckDBPyConnection, table: Table, split: Split) -> None:
    """Split validation rows off, by whole normalised texts within a stratum, as ``splits.py`` does for the test."""
    database.execute(_HELD_OUT, {"seed": str(split.seed), "share": split.validation})
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
        FROM task_given JOIN task_texts USING (unit)
    """)


# At least one text is held out, and at least one isn't, if there are two.
_HELD_OUT = """
    CREATE OR REPLACE TABLE task_texts AS
    WITH texts AS (
        SELECT unit, min(stratum) AS stratum, count(*) AS n FROM task_given GROUP BY unit
    ), lined_up AS (
        SELECT unit, (sum(n) OVER line - n / 2) / sum(n) OVER (PARTITION BY stratum) < $share AS within,
               row_number() OVER (ORDER BY md5($seed || ' ' || hex(unit)), unit) AS place
        FROM texts
        WINDOW line AS (PARTITION BY stratum ORDER BY md5($seed || ' ' || hex(unit)), unit
                        ROWS UNBOUNDED PRECEDING))
    SELECT unit, CASE WHEN NOT bool_or(within) OVER () THEN place = 1 AND count(*) OVER () > 1
                      WHEN bool_and(within) OVER () THEN place < count(*) OVER ()
                      ELSE within END AS held_out
    FROM lined_up
"""


def _write_split(
    database: duckdb.DuckDBPyConnection, task: Task, paired: bool, names: list[str], split: str, folder: Path
) -> int:
    ((worded,),) = database.execute("SELECT count(words) > 0 FROM task").fetchall()
    schema = layout(task, paired, worded, about=False)
    reader = database.sql("SELECT * FROM task WHERE split = $split ORDER BY row", params={"split": split})
    places = {name: place for place, name in enumerate(names)}
    return write_shards(canonical(reader.to_arrow_reader(BATCH_ROWS), task, places, schema), schema, folder)


def _test_texts(database: duckdb.DuckDBPyConnection) -> int:
    ((rows,),) = database.execute("""
        SELECT count(*) FROM task WHERE split = 'train' AND form IN (
            SELECT same_form FROM drawn WHERE split = 'test' AND same_form IS NOT NULL)
    """).fetchall()
    return int(rows)
