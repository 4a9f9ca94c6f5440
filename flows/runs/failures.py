"""What a stage's end means for people: its own error, a full disk, DVC busy, a signal; else the end of its output."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from components import errors
from components.errors import UserError

_NO_ACCESS = re.compile(r"\[Errno (30|13|1)\] (Read-only file system|Permission denied|Operation not permitted)")
_KILLED = re.compile(r"exited with -(\d+)")


class StageFailed(RuntimeError):
    """A stage ended with an error that isn't the user's; carries the end of its output."""


def failure(root: Path, name: str, code: int, tail: Sequence[str]) -> Exception:
    """Why the stage ``name`` ended with this code, by what it left behind and the last lines of its output."""
    told = errors.recall(name, root / errors.ERROR_FOLDER)
    if told:
        return told
    lines = [line for line in tail if line.strip()]
    full = next(filter(None, (errors.disk_full(RuntimeError(line)) for line in lines)), None)
    if full:
        return full
    text = "\n".join(lines)
    if "No possible cache link types" in text:  # how DVC tells that it could not copy a result into place
        free = shutil.disk_usage(root / "artifacts").free / 1e6
        return errors.no_space(f"DVC could not put the result of {name} in place; {free:,.1f} MB are free.")
    readable = _busy(name, lines) or _no_access(name, lines)
    return readable or _killed(name, code, text) or StageFailed(_told(name, code, text))


def _busy(name: str, lines: Sequence[str]) -> UserError | None:
    """Another DVC command works on the same files."""
    said = next((line for line in lines if "is busy, it is being blocked by" in line), None)
    if said is None:
        return None
    return UserError(
        f"DVC can't bring {name} up to date: {said.removeprefix('ERROR:').strip()}",
        "Another DVC command is at work in this project; wait until it ends, then run again.",
        kind="busy",
    )


def _no_access(name: str, lines: Sequence[str]) -> UserError | None:
    """A file that DVC or the stage must read or write, or the folder that it is in, doesn't let them."""
    said = next((line for line in lines if _NO_ACCESS.search(line)), None)
    if said is None:
        return None
    return UserError(
        f"{name} could not read or write a file: {said.removeprefix('ERROR:').strip()}",
        "Make the file readable and its folder writable (owner, mode, the way its disk is mounted) and run again.",
        kind="disk",
    )


def _killed(name: str, code: int, text: str) -> StageFailed | None:
    """The stage was ended by a signal that we didn't send."""
    found = _KILLED.search(text)
    number = int(found[1]) if found else code - 128 if 128 < code < 160 else None
    if number is None:
        return None
    memory = ", as the system does when memory runs out" if number == 9 else ""
    told = f"The stage {name} was killed by signal {number}{memory}. Run again: it goes on from its last checkpoint."
    return StageFailed(f"{told}\n{text}")


def _told(name: str, code: int, text: str) -> str:
    return f"The stage {name} ended with code {code}. The end of its output:\n{text}"
