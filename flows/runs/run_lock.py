"""At most one run at a time in a workspace: a lock that the holder's death releases, and a note of who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from components.errors import UserError
from flows.repo.workspace import Workspace
from flows.runs.processes import Process

NAME = "run.lock"
POLL_SECONDS = 0.2
ENDING_SECONDS = 10.0  # how long the processes of a killed run may take to end


@dataclass(frozen=True)
class Note:
    """Who holds the lock: the process, its machine, since when, and its flow run in Prefect."""

    pid: int
    host: str
    start: str
    flow_run: str = ""

    @property
    def alive(self) -> bool:
        """Whether the process is there, and not only its exit code; one of another machine counts as alive."""
        if self.host != socket.gethostname():
            return True
        import psutil

        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


class RunLock:
    """The lock, held. ``left`` is the note of the run before if that was killed, until :meth:`settle`."""

    def __init__(self, descriptor: int, left: Note | None) -> None:
        self._descriptor = descriptor
        self.left = left
        start = datetime.now().astimezone().isoformat(timespec="seconds")
        self._note = Note(os.getpid(), socket.gethostname(), start)
        self._write(json.dumps(asdict(self._note)))

    def add(self, flow_run: str) -> None:
        """Note the flow run, so that the next run can tell Prefect what became of it."""
        self._note = replace(self._note, flow_run=flow_run)
        self._write(json.dumps(asdict(self._note)))

    def settle(self) -> None:
        """What the killed run left is dealt with; else its note comes back when we end, for the next run."""
        self.left = None

    def clear(self) -> None:
        """Leave no note of ours: we end as we should."""
        self._write(json.dumps(asdict(self.left)) if self.left and self.left.flow_run else "")

    def _write(self, text: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)


_held: dict[Path, RunLock] = {}


@contextlib.contextmanager
def only_run(
    workspace: Workspace, if_busy: str = "refuse", say: Callable[[str], None] = lambda _: None
) -> Iterator[RunLock]:
    """Be the only run in this workspace; a call inside another one is part of it.

    Every process that we start keeps the lock as well until it has ended: a run that was killed holds it
    until nothing of it is left.

    Args:
        if_busy: ``refuse`` or ``wait``.
        say: is told that we wait, and for whom.

    Raises:
        UserError: another run is at work (``busy``).
    """
    path = workspace.state / NAME
    if path in _held:
        yield _held[path]
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, path, if_busy, say)
        Process.kept_open.add(descriptor)
        lock = _held[path] = RunLock(descriptor, read(path))
        yield lock
        lock.clear()
    except BaseException:
        if path in _held:
            _held[path].clear()
        raise
    finally:
        Process.kept_open.discard(descriptor)
        if _held.pop(path, None):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for the children that still have it
        os.close(descriptor)


def held(workspace: Workspace) -> RunLock | None:
    """The lock, if this process holds it."""
    return _held.get(workspace.state / NAME)


def read(path: Path) -> Note | None:
    """The note in a lock file; None without a whole one."""
    try:
        return Note(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _acquire(descriptor: int, path: Path, if_busy: str, say: Callable[[str], None]) -> None:
    deadline, told = time.monotonic() + ENDING_SECONDS, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            note = read(path)
        ending = note is None or not note.alive
        if if_busy != "wait" and not (ending and time.monotonic() < deadline):
            raise _busy(note, ending)
        if not ending and not told:
            say(f"Waiting: {_whose(note)}.")
            told = True
        time.sleep(POLL_SECONDS)


def _busy(note: Note | None, ending: bool) -> UserError:
    if ending:
        message = "A run in this project was killed, and what it had started is still at work."
        return UserError(message, "Wait for it to end, or end it, then try again.", "busy")
    return UserError(
        f"At most one run may be at work in a project: {_whose(note)}.",
        "Wait until it ends, or have `stillhouse run --wait` do so.",
        "busy",
    )


def _whose(note: Note | None) -> str:
    assert note is not None
    where = "" if note.host == socket.gethostname() else f" on {note.host}"
    return f"process {note.pid}{where} has been running it since {note.start}"
