"""Errors meant for the user: what was expected, what arrived, what to do."""

from __future__ import annotations

import errno
import json
from pathlib import Path

ERROR_FOLDER = Path(".stillhouse/errors")


class UserError(Exception):
    """A mistake the user can mend; shown without a traceback, exit code 2.

    ``message`` says what was expected and what arrived, ``remedy`` what to do,
    and ``kind`` is a stable word for machines (``data``, ``parameters``, ``gate``, ``disk`` ...).
    """

    def __init__(self, message: str, remedy: str = "", kind: str = "user") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


def disk_full(error: BaseException) -> UserError | None:
    """The readable form of an error that means "no space left", whichever library raised it."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    words = ("no space left on device", "os error 28", "database or disk is full", "disk quota exceeded")
    if full or any(word in str(error).lower() for word in words):
        return no_space(str(error))
    return None


def no_space(found: str) -> UserError:
    """The error that says the disk is full."""
    return UserError(
        f"The disk is full: {found}",
        "Free some space (`dvc gc --workspace` removes results that nothing refers to) and run again; "
        "finished stages are kept.",
        kind="disk",
    )


def record(stage: str, error: UserError, folder: Path = ERROR_FOLDER) -> None:
    """Leave the error where the flow finds it: ``dvc`` itself only tells that a stage failed."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"stage": stage, "kind": error.kind, "message": error.message, "remedy": error.remedy})
    draft = folder / f"{stage}.json.new"
    draft.write_text(text + "\n", encoding="utf-8")  # a full disk leaves this one torn
    draft.replace(folder / f"{stage}.json")


def recall(stage: str, folder: Path = ERROR_FOLDER) -> UserError | None:
    """The error that ``stage`` left behind, if it left a whole one."""
    try:
        found = json.loads((folder / f"{stage}.json").read_text(encoding="utf-8"))
        return UserError(found["message"], found["remedy"], found["kind"])
    except (OSError, ValueError, KeyError):
        return None


def forget(stage: str, folder: Path = ERROR_FOLDER) -> None:
    """Remove what an earlier attempt of ``stage`` left behind."""
    (folder / f"{stage}.json").unlink(missing_ok=True)
