"""One run at a time in a workspace, whatever became of the one before; the rest is in test_running."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import UserError
from flows.repo.workspace import Workspace
from flows.runs import run_lock

ROOT = Path(__file__).parents[3]
HOLDS = """
import sys, time
from pathlib import Path
from flows.runs.processes import Process
from flows.repo.workspace import Workspace
from flows.runs.run_lock import only_run
with only_run(Workspace(Path(sys.argv[1]))):
    child = Process(["sleep", sys.argv[2]], Path.cwd())
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, and has started one that lives as long."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path), "60"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_the_lock_names_its_holder_and_is_free_and_empty_afterwards(workspace: Workspace) -> None:
    path = workspace.state / "run.lock"
    with run_lock.only_run(workspace) as lock:
        lock.add("0-1-2")
        note = json.loads(path.read_text())
        assert (note["pid"], note["flow_run"]) == (os.getpid(), "0-1-2")
    assert path.read_text() == ""
    with path.open("a") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_failure_leaves_no_note(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="x"), run_lock.only_run(workspace):
        raise ValueError("x")
    assert (workspace.state / "run.lock").read_text() == ""


def test_a_call_inside_another_is_part_of_it(workspace: Workspace) -> None:
    with run_lock.only_run(workspace) as outer:
        with run_lock.only_run(workspace) as inner:
            assert inner is outer
        assert run_lock.held(workspace) is outer
    assert run_lock.held(workspace) is None


def test_another_run_is_refused_with_the_holders_pid(workspace: Workspace, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(UserError, match=f"process {holder.pid} ") as caught, run_lock.only_run(workspace):
        pass
    assert caught.value.kind == "busy"


def test_a_killed_holders_children_are_waited_for_and_its_note_is_handed_on(
    workspace: Workspace, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with run_lock.only_run(workspace) as lock:
        assert lock.left is not None
        assert lock.left.pid == holder.pid
    assert time.monotonic() - started < run_lock.ENDING_SECONDS


def test_the_note_of_a_killed_run_comes_back_until_it_is_dealt_with(workspace: Workspace) -> None:
    path, note = workspace.state / "run.lock", {"pid": 2**22 + 1, "host": "gone", "start": "then", "flow_run": "0-1-2"}
    workspace.state.mkdir()
    path.write_text(json.dumps(note))
    with run_lock.only_run(workspace):
        pass
    assert json.loads(path.read_text()) == note
    with run_lock.only_run(workspace) as lock:
        lock.settle()
    assert path.read_text() == ""


def test_a_damaged_note_is_no_obstacle(workspace: Workspace) -> None:
    workspace.state.mkdir()
    (workspace.state / "run.lock").write_text('{"pid": 1')
    with run_lock.only_run(workspace) as lock:
        assert lock.left is None
