"""Child processes that never outlive us: each runs under the supervisor, its output read line by line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervisor.py")
TAIL_LINES = 60


class Process:
    """A command under the supervisor; ``end`` (or our death) ends its whole process group."""

    running: set[Process] = set()  # noqa: RUF012  # one register for the whole interpreter
    _register = threading.Lock()

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        watched, self._held = os.pipe()
        self._popen = subprocess.Popen(
            [sys.executable, "-S", str(SUPERVISOR), str(watched), *command],
            cwd=folder,
            env=child_environment() | dict(environment or {}),
            pass_fds=(watched,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        os.close(watched)
        with self._register:
            self.running.add(self)

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
        with self._register:
            if self not in self.running:
                return
            self.running.remove(self)
        os.close(self._held)
        self._popen.wait()

    @classmethod
    def end_all(cls) -> None:
        """End every running command; for an interrupted flow."""
        for process in list(cls.running):
            process.end()


def child_environment() -> dict[str, str]:
    """Our environment, with this interpreter's folder first on the path and unbuffered Python output."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1"}
