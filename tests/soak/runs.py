"""A run under attack: its processes by what they are, kills at chosen moments, and what is left behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.soak.projects import Project

TARGETS = ("stage", "dvc", "supervisor", "flow", "group")
POLL_SECONDS = 0.01
ENDS_WITHIN = 10.0
"""Seconds that a run's processes may outlive it."""
LONGEST = 600.0


@dataclass
class Ended:
    """How a run ended: its exit code (negative: the signal) and all it said."""

    code: int
    output: str


class Run:
    """A started run; its output goes to a file, so that it never blocks."""

    def __init__(self, project: Project, log: Path, *options: str, **environment: str) -> None:
        self.project = project
        self.log = log
        with log.open("wb") as output:
            self.process = psutil.Popen(
                project.command(*options),
                cwd=project.root,
                env=project.environ() | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self, seconds: float = LONGEST) -> Ended:
        """Its end."""
        code = self.process.wait(seconds)
        return Ended(int(code or 0), self.log.read_text(encoding="utf-8", errors="replace"))

    @property
    def alive(self) -> bool:
        """Whether the flow's own process still runs."""
        return bool(self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE)

    def find(self, target: str, stage: str | None = None) -> psutil.Process | None:
        """The process of that kind, of any stage or of the one named; None when there is none just now."""
        if target == "flow":
            return self.process if self.alive else None
        for process in descendants(self.process):
            command = words(process)
            if kind_of(command) == target and (stage is None or stage in command):
                return process
        return None

    def await_stage(self, stage: str, seconds: float = 120.0) -> bool:
        """Wait until the stage's own process runs; False when the run ended, or never came to it."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            if self.find("stage", stage):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def kill(self, target: str, stage: str | None = None) -> str | None:
        """Kill -9 what is named, else the flow; says what was killed, None when the run had ended."""
        if target == "group":
            found = [process for process in descendants(self.process) if kind_of(words(process)) in TARGETS]
            for process in [*found, self.process] if self.alive else []:
                _kill(process)
            return "group" if found else None
        process = self.find(target, stage) or self.find("flow")
        if process is None:
            return None
        hit = "flow" if process.pid == self.process.pid else target
        return hit if _kill(process) else None


def _kill(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
        return True
    return False


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All living processes below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def words(process: psutil.Process) -> list[str]:
    """Its command line; empty when it has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return list(process.cmdline())
    return []


def kind_of(command: list[str]) -> str:
    """What a process of a run is, by its command line."""
    line = " ".join(command)
    if "supervisor.py" in line:
        return "supervisor"
    if "repro" in command:
        return "dvc"
    if "code/stage.py" in line or ("-m components" in line and "sh -c" not in line):
        return "stage"
    return "server" if "prefect" in line or "uvicorn" in line else "other"


def left_behind(root: Path) -> list[str]:
    """Processes at work in the project that nobody waits for any more."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def wait_until_quiet(root: Path, seconds: float = ENDS_WITHIN) -> list[str]:
    """What still runs in the project after that many seconds."""
    deadline = time.monotonic() + seconds
    while (found := left_behind(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[bool]:
    """A file system of its own at ``folder``; False where this needs rights that we lack."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={int(megabytes * 1024)}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[bool]:
    """The folder mounted read-only over itself, which binds the superuser too; False where we lack the rights."""
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if bound.returncode:
        yield False
        return
    try:
        again = ["mount", "-o", "remount,bind,ro", folder]
        yield subprocess.run(again, capture_output=True, check=False).returncode == 0
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
