"""A command never outlives its starter, however the starter ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.runs.processes import Process

ROOT = Path(__file__).parents[3]
# A shell that starts a grandchild and waits, as `dvc` does with a trainer.
FAMILY = ["bash", "-c", "sleep 300 & echo $! ; echo $$ ; wait"]
STUBBORN = ["bash", "-c", "trap '' TERM; echo $$; while true; do sleep 0.2; done"]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_output_is_handed_on_line_by_line_with_the_exit_code(tmp_path: Path) -> None:
    seen: list[str] = []
    code, tail = Process(["bash", "-c", "echo 一; echo two >&2; exit 3"], tmp_path).follow(seen.append)
    assert code == 3
    assert seen == tail == ["一", "two"]


def test_a_missing_command_is_an_exit_code_not_a_traceback(tmp_path: Path) -> None:
    code, tail = Process(["no-such-command"], tmp_path).follow(lambda _: None)
    assert code == 127
    assert "Traceback" not in "\n".join(tail)


def test_end_takes_the_whole_group_along(tmp_path: Path) -> None:
    pids: list[int] = []
    process = Process(FAMILY, tmp_path)

    def end_when_started(line: str) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            process.end()

    process.follow(end_when_started)
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = Process(STUBBORN, tmp_path)
    pids: list[int] = []
    started = time.monotonic()
    process.follow(lambda line: (pids.append(int(line)), process.end())[0])
    assert time.monotonic() - started < 10
    assert not alive(pids[0])


def test_what_a_finished_command_left_behind_is_ended(tmp_path: Path) -> None:
    pids: list[int] = []
    Process(["bash", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], tmp_path).follow(lambda line: pids.append(int(line)))
    assert eventually(lambda: not alive(pids[0]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_starters_death_ends_the_group(tmp_path: Path, number: int) -> None:
    code = (
        "import sys; from pathlib import Path; from flows.runs.processes import Process; "
        f"Process({FAMILY!r}, Path('.')).follow(lambda line: print(line, flush=True))"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pids = [int(starter.stdout.readline()) for _ in range(2)]
    assert all(alive(pid) for pid in pids)
    os.kill(starter.pid, number)
    starter.wait()
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_what_a_killed_supervisor_left_behind_is_ended_with_its_process(tmp_path: Path) -> None:
    process = Process(FAMILY, tmp_path)
    pids: list[int] = []

    def kill_the_supervisor(line: str) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            os.kill(process._popen.pid, signal.SIGKILL)
            process.end()

    process.follow(kill_the_supervisor)
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_several_commands_that_ignore_sigterm_end_side_by_side(tmp_path: Path) -> None:
    processes = [Process(STUBBORN, tmp_path, grace=1.0) for _ in range(4)]
    time.sleep(1)
    started = time.monotonic()
    Process.end_all(processes)
    assert time.monotonic() - started < 3
