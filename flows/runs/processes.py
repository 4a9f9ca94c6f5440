"""Child processes that never outlive us: each runs under the supervisor, its output read line by line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from flows.runs.supervisor import GRACE_SECONDS

SUPERVISOR = Path(__file__).with_name("supervisor.py")
TAIL_LINES = 60


class Process:
    """A command under the supervisor; ``end`` (or our death) ends its whole process group.

    Args:
        command: the program and its arguments.
        folder: where it works.
        environment: variables beside ours.
        grace: seconds between SIGTERM and SIGKILL.
    """

    kept_open: ClassVar[set[int]] = set()
    """Files that each supervisor keeps open as well while it lives: locks that a killed run must hold on to."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        watched, self._held = os.pipe()
        self._popen = subprocess.Popen(
            [sys.executable, "-S", str(SUPERVISOR), str(watched), str(grace), *command],
            cwd=folder,
            env=child_environment() | dict(environment or {}),
            pass_fds=(watched, *self.kept_open),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        os.close(watched)
        self._asking = threading.Lock()
        self._asked = False

    @property
    def alive(self) -> bool:
        """Whether the command still runs."""
        return self._popen.poll() is None

    def follow(self, on_line: Callable[[str], None]) -> tuple[int, list[str]]:
        """Hand on every line of output as it comes; the exit code and the last lines."""
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        assert self._popen.stdout is not None
        try:
            for line in self._popen.stdout:
                tail.append(line.rstrip("\n"))
                on_line(tail[-1])
            return self._popen.wait(), list(tail)
        finally:
            self.end()

    def end(self) -> None:
        """End the command's process group and wait until it is gone."""
        self._ask_to_end()
        if self._popen.wait() < 0:  # the supervisor itself was killed
            _end_session(self._popen.pid)

    def _ask_to_end(self) -> None:
        with self._asking:
            if not self._asked:
                self._asked = True
                os.close(self._held)

    @staticmethod
    def end_all(processes: Iterable[Process]) -> None:
        """End these commands side by side."""
        ended = list(processes)
        for process in ended:
            process._ask_to_end()
        for process in ended:
            process.end()


def _end_session(session: int) -> None:
    """Kill what a killed supervisor left behind: all that is in the session which it began."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), signal.SIGKILL)


def child_environment() -> dict[str, str]:
    """Our environment, with this interpreter's folder first on the path and unbuffered Python output."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1"}
