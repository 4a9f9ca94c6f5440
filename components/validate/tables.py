"""Which files the section data names, and which columns of each are to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.ml.tasks.task import Task
from components.params.columns import ABOUT, Columns, roles
from components.params.data import Data, Judgements, OtherTask


@dataclass(frozen=True)
class Table:
    """A file, or folder of shards, and its columns by role; None takes no column.

    ``key`` of params.yaml names the file, and may be null if it isn't ``needed``; ``columns_key`` names the columns.
    A role in ``optional`` may name a column that isn't there. Values of roles in ``kept`` stay what they are in the
    file, all others become text; those in ``lists`` are lists that a CSV or TSV file can't hold, those in ``as_json``
    can be JSON there. An empty field there is no value, but for roles in ``empty``.
    """

    path: Path
    columns: Mapping[str, str | None]
    key: str
    columns_key: str
    needed: bool = True
    optional: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    as_json: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def tables(data: Data, root: Path) -> Iterator[Table]:
    """Every table there is: the splits, those of other tasks, and the judgements."""
    yield from (split_table(data, source, root) for source in data.files)
    for name, task in data.tasks.items():
        yield task_table(name, task, "train", root)
        if task.validation is not None:
            yield task_table(name, task, "validation", root)
    if data.judgements is not None:
        yield judgements_table(data.judgements, root)


def split_table(data: Data, source: str, root: Path) -> Table:
    """The table of a split of the project's own task; the pool has no targets and needs no more than texts."""
    pool = source == "unlabelled"
    columns = _by_role(data.columns, roles(data.kind))
    return Table(
        root / data.files[source],
        columns | ({data.kind.target: None} if pool else {}),
        f"data.{source}",
        "data.columns",
        needed=source == "train",
        optional=(data.kind.target, *ABOUT) if pool else (),
        **_values(data.kind),
    )


def task_table(name: str, task: OtherTask, split: Literal["train", "validation"], root: Path) -> Table:
    """The table of a split of another task."""
    key = f"data.tasks.{name}"
    path = root / str(task.train if split == "train" else task.validation)
    columns = _by_role(task.columns, roles(task.kind, about=()))
    return Table(path, columns, f"{key}.{split}", f"{key}.columns", needed=split == "train", **_values(task.kind))


def judgements_table(judgements: Judgements, root: Path) -> Table:
    """The table of judgements, with the roles text, text_pair, label and probabilities."""
    columns: dict[str, str | None] = judgements.columns.model_dump()
    path = root / judgements.file
    return Table(path, columns, "data.judgements.file", "data.judgements.columns", kept=tuple(columns))


def given_roles(table: Table, task: Task) -> list[str]:
    """The roles that the task reads of each row: those it needs, and the others that have a column."""
    return [*task.columns, *(role for role in task.optional if table.columns[role] is not None)]


def is_paired(table: Table, task: Task) -> bool:
    """Whether rows are read as two texts."""
    return len(task.read(dict.fromkeys(given_roles(table, task))).texts) > 1


def reads_pairs(data: Data) -> bool:
    """Whether the rows of the project's own task are two texts."""
    return is_paired(split_table(data, "train", Path()), data.kind)


def _by_role(columns: Columns, named: tuple[str, ...]) -> dict[str, str | None]:
    return {role: columns.of(role) for role in named}


def _values(task: Task) -> dict[str, tuple[str, ...]]:
    """How a task's values are read."""
    as_text = task.lists_as_text
    return {
        "kept": task.lists,
        "lists": tuple(role for role in task.lists if role not in as_text),
        "as_json": as_text,
        "empty": (task.target,) if task.target in as_text else (),
    }
