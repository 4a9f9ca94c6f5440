"""How a command that a schedule has started ended: of which kind its error was, and whether people were told."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from components.errors import UserError

VARIABLE = "STILLHOUSE_ENDING"
"""Names the file in which a command leaves how it failed."""
USERS = ("data", "parameters", "gate", "pipeline", "model", "user")
"""Kinds of errors that the same revision and data will meet again."""


def note(kind: str, told: bool) -> None:
    """Leave the kind of an error for what started us, if that wants to know; the first one counts."""
    path = Path(os.environ.get(VARIABLE) or os.devnull)
    if path != Path(os.devnull) and not path.exists():
        with contextlib.suppress(OSError):
            path.write_text(json.dumps({"kind": kind, "told": told}), encoding="utf-8")


def read(path: Path) -> tuple[str, bool]:
    """The kind of the error, and whether people were told of it; nothing, and no, when nothing was noted."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["kind"]), bool(found["told"])
    return "", False


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Note the UserError that ends what is inside, unless a run has noted it and told of it."""
    try:
        yield
    except UserError as error:
        note(error.kind, told=False)
        raise
