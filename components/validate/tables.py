"""Which files the section data names, and which columns of each are to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.params.data import Data, Judgements, Task

ROLES = ("text", "text_pair", "label", "group", "document")
ABOUT = ("label", "group", "document")
"""The roles that a row of the pool may lack."""


@dataclass(frozen=True)
class Table:
    """A file, or folder of shards, and its columns by role; None takes no column.

    ``key`` of params.yaml names the file, and may be null if it isn't ``needed``; ``columns_key`` names the columns.
    A role in ``optional`` may name a column that isn't there. ``lists``: the values are lists.
    """

    path: Path
    columns: Mapping[str, str | None]
    key: str
    columns_key: str
    needed: bool = True
    optional: tuple[str, ...] = ()
    lists: bool = False


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
    """The table of a split of the project's own task; the pool has no labels and needs no more than texts."""
    columns: dict[str, str | None] = {role: getattr(data.columns, role) for role in ROLES}
    pool = source == "unlabelled"
    return Table(
        root / data.files[source],
        columns | ({"label": None} if pool else {}),
        f"data.{source}",
        "data.columns",
        needed=source == "train",
        optional=ABOUT if pool else (),
    )


def task_table(name: str, task: Task, split: Literal["train", "validation"], root: Path) -> Table:
    """The table of a split of another task, with the roles text and label, or tokens and tags."""
    key = f"data.tasks.{name}"
    path = root / str(task.train if split == "train" else task.validation)
    lists = task.type == "token-classification"
    columns: dict[str, str | None] = task.columns.model_dump()
    return Table(path, columns, f"{key}.{split}", f"{key}.columns", needed=split == "train", lists=lists)


def judgements_table(judgements: Judgements, root: Path) -> Table:
    """The table of judgements, with the roles text, text_pair, label and probabilities."""
    columns: dict[str, str | None] = judgements.columns.model_dump()
    return Table(root / judgements.file, columns, "data.judgements.file", "data.judgements.columns")
