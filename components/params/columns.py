"""Which columns of the user's files play which role of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Task
from components.params.section import Section, nearest

ABOUT = ("group", "document")
"""What any row of the project's own may have beside the roles of its task."""


class Columns(Section):
    """Names of columns by role; None where a task has no such role, or a file no such column.

    With ``text_pair`` a row is two texts that are read together, such as a premise and a hypothesis. Roles of other
    tasks are attributes like these.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | None] = Field(init=False)

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    group: str | None = None
    document: str | None = None

    def of(self, role: str) -> str | None:
        """The column of any role."""
        column: str | None = getattr(self, role, None)
        return column


def task_name(name: str) -> str:
    """``name``, which must be a task's.

    Raises:
        ValueError: it isn't; the message has the one that was probably meant.
    """
    if name not in TASKS:
        raise ValueError(f"expected the name of a task, got '{name}'{nearest(name, TASKS)}")
    return name


def roles(task: Task, about: Sequence[str] = ABOUT) -> tuple[str, ...]:
    """The roles of a task's rows, those that may be left out among them."""
    return (*task.columns, *task.optional, *about)


def with_roles(given: Any, task: Task, about: Sequence[str] = ABOUT, named: bool = False) -> Any:
    """Columns with a name for each role that a row needs: the role's own, unless ``named`` wants the user to say it.

    Raises:
        ValueError: a role that the task doesn't know, or that needs a column and has none.
    """
    if not isinstance(given, Mapping):
        return given
    known = roles(task, about)
    for role in given:
        if role not in known:
            near = nearest(str(role), known)
            guess = near if near.startswith("; did") else ""
            raise ValueError(f"expected the roles of {task.name} ({', '.join(known)}), got '{role}'{guess}")
    columns = {**({} if named else dict(zip(task.columns, task.columns, strict=True))), **given}
    lacking: list[Any] = [
        {"type": "string_type" if role in columns else "missing", "loc": (role,), "input": columns.get(role)}
        for role in task.columns
        if columns.get(role) is None
    ]
    if lacking:
        raise ValidationError.from_exception_data("Columns", lacking)
    return columns
