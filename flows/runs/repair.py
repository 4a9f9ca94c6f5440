"""Mends what a run that was killed may have left behind, and keeps what is needed for that."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import UserError
from flows.repo import lockfile
from flows.repo.workspace import Workspace

LOCK_FILE = "dvc.lock"
_RWLOCK = Path(".dvc/tmp/rwlock")
_keeping = threading.Lock()


def mend(workspace: Workspace) -> list[str]:
    """Put right what was left half-written; call it while no other run is at work. Says what it mended."""
    for partial in workspace.root.glob("artifacts/*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    said = [_mend_lock_file(workspace), _mend_rwlock(workspace.root)]
    return [line for line in said if line]


def keep_lock_file(workspace: Workspace) -> None:
    """Keep a copy of dvc.lock, which DVC writes in place: killed in the middle, it leaves half of it.

    Stages that start at the same moment call this side by side.
    """
    path = workspace.root / LOCK_FILE
    with _keeping:
        if not _whole(path):
            return
        kept = workspace.state / LOCK_FILE
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".new")
        shutil.copyfile(path, draft)
        if _whole(draft):  # another stage's DVC may have been writing just now
            draft.replace(kept)


def _mend_lock_file(workspace: Workspace) -> str | None:
    path, kept = workspace.root / LOCK_FILE, workspace.state / LOCK_FILE
    if not path.exists() or _whole(path) or not _whole(kept) or b"<<<<<<<" in path.read_bytes():
        return None  # git's conflicts are the user's to solve
    draft = path.with_suffix(".lock.new")
    shutil.copyfile(kept, draft)
    draft.replace(path)
    return f"{LOCK_FILE} was half-written; its last whole version is back. What it lacks comes from DVC's run-cache."


def _whole(path: Path) -> bool:
    """Whether a dvc.lock is all there: its last line ends, it can be read, and no list of it is cut off."""
    try:
        stages = lockfile.entries(path)
        return (
            path.read_bytes().endswith(b"\n") and bool(stages) and all(None not in s.values() for s in stages.values())
        )
    except (OSError, UserError, ValueError, AttributeError):
        return False


def _mend_rwlock(root: Path) -> str | None:
    """DVC notes in this file which command reads and writes what; it rewrites it in place, and doubts no pid."""
    path = root / _RWLOCK
    if not path.exists():
        return None
    with _guarded(path) as free:
        if not free:
            return None  # a DVC command is at it this moment: it is whole and in use
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            noted = {"write": noted.get("write", {}), "read": noted.get("read", {})}
            left = _of_living(noted, path.stat().st_mtime)
        except (ValueError, TypeError, KeyError, AttributeError):
            path.unlink()
            return "DVC's record of running commands was half-written; it is removed."
        if left == noted:
            return None
        path.write_text(json.dumps(left), encoding="utf-8")
    return "DVC's record of running commands named some that were killed; they are taken out."


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[bool]:
    """DVC's own lock around the file, if it is free."""
    with path.with_name(path.name + ".lock").open("a") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _of_living(noted: dict[str, Any], written: float) -> dict[str, Any]:
    """The entries whose process is still at work."""
    write = {path: info for path, info in noted["write"].items() if _living(info["pid"], written)}
    read = {path: [info for info in infos if _living(info["pid"], written)] for path, infos in noted["read"].items()}
    return {"write": write, "read": {path: infos for path, infos in read.items() if infos}}


def _living(pid: int, written: float) -> bool:
    """Whether the process that noted itself is still there: not another one, which was given its number since."""
    import psutil

    if pid == os.getpid():
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + 1:
            return False
        return any(word in part for part in process.cmdline() for word in ("dvc", "python"))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's: let DVC decide
        return True
