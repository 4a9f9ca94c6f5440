"""However a run is stopped: nothing of it is left within ten seconds, and Prefect says what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.usefixtures("prefect_server")
Toy = Any
ROOT = Path(__file__).parents[3]
WAITS = "import os, time\nPath('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
LIMIT = 10.0


@dataclass
class Run:
    """A run of the toy in a process of its own; its second stage waits for a minute."""

    toy: Toy
    process: subprocess.Popen[str]

    def wait_for_stage(self) -> None:
        pid, deadline = self.toy.root / "pid", time.monotonic() + 60
        while not (pid.exists() and pid.read_text()):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self) -> tuple[int, str, float]:
        """Exit code, output, and how many seconds it took until nothing of it was left."""
        started = time.monotonic()
        output = self.process.communicate(timeout=30)[0]
        while processes_in(self.toy.root) and time.monotonic() - started < 30:
            time.sleep(0.05)
        return self.process.returncode, output, time.monotonic() - started

    def flow_run(self) -> Any:
        """The newest flow run as Prefect has it."""
        return flow_runs(1)[0]


def processes_in(folder: Path) -> set[int]:
    """Processes whose working folder is ``folder``."""
    return {process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(folder.resolve())}


def flow_runs(count: int) -> list[Any]:
    """The newest flow runs, newest first."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=count))


def start(toy: Toy, options: dict[str, Any] | None = None, before: tuple[str, ...] = (), **environment: str) -> Run:
    from prefect.settings import PREFECT_API_URL

    settings = {"PREFECT_API_URL": PREFECT_API_URL.value(), "PYTHONPATH": str(ROOT)}
    command = [*before, sys.executable, "-m", "tests.flows.toy_run", repr(options or {})]
    process = subprocess.Popen(
        command,
        cwd=toy.root,
        env=os.environ | settings | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Run(toy, process)


@pytest.fixture
def waiting(toy: Toy) -> Iterator[Toy]:
    toy.edit("code/second.py", "times = ", WAITS + "times = ")
    yield toy
    for pid in processes_in(toy.root):
        os.kill(pid, signal.SIGKILL)


def lock_is_free(toy: Toy) -> bool:
    import fcntl

    with (toy.root / ".stillhouse/run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return bool((toy.root / ".stillhouse/run.lock").read_text() == "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_ends_everything_and_prefect_says_cancelled_and_by_what(waiting: Toy, number: int) -> None:
    run = start(waiting)
    run.wait_for_stage()
    run.process.send_signal(number)
    code, output, seconds = run.end()
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert (code, seconds < LIMIT) == (130, True), (output, seconds)
    assert f"cancelled by {name} during second" in output
    state = run.flow_run().state
    assert (state.name, f"cancelled by {name} during second" in state.message) == ("Cancelled", True)
    assert lock_is_free(waiting)


def cancel_in_prefect(flow_run: Any) -> None:
    """As the UI and `prefect flow-run cancel` do."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Cancelling())


def test_a_cancellation_in_prefect_ends_everything_even_a_stage_that_ignores_sigterm(waiting: Toy) -> None:
    waiting.edit("code/second.py", "import os, time\n", "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n")
    run = start(waiting)
    run.wait_for_stage()
    cancel_in_prefect(run.flow_run())
    code, output, seconds = run.end()
    assert (code, seconds < LIMIT) == (2, True), (output, seconds)
    assert "cancelled: Cancelled from Prefect during second" in output
    assert run.flow_run().state.name == "Cancelled"
    assert "cancelled from Prefect during second" in run.flow_run().state.message
    assert lock_is_free(waiting)


def test_a_time_limit_ends_everything_and_the_state_says_so(waiting: Toy) -> None:
    run = start(waiting, {"time_limit": 6.0})
    run.wait_for_stage()
    started = time.monotonic()
    code, output, _ = run.end()
    assert (code, time.monotonic() - started < 6 + LIMIT) == (2, True), output
    assert "time limit: Stopped by its time limit of 6 seconds during second" in output
    state = run.flow_run().state
    assert (state.name, state.is_failed()) == ("TimedOut", True)
    assert "time limit of 6 seconds" in state.message


def test_the_death_of_what_started_the_run_ends_it_if_asked_to(waiting: Toy) -> None:
    run = start(waiting, before=("bash", "-c", '"$@" & wait', "starter"), STILLHOUSE_DIES_WITH_PARENT="1")
    run.wait_for_stage()
    run.process.kill()
    _, output, seconds = run.end()
    assert seconds < LIMIT
    assert "the process that started it has died" in output
    assert run.flow_run().state.name == "Cancelled"


def test_a_second_ctrl_c_leaves_at_once_and_no_orphan(waiting: Toy) -> None:
    waiting.edit("code/second.py", "import os, time\n", "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n")
    run = start(waiting)
    run.wait_for_stage()
    run.process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    run.process.send_signal(signal.SIGINT)
    code, output, seconds = run.end()
    assert (code, seconds < LIMIT) == (130, True), (output, seconds)
    assert run.flow_run().state.name == "Cancelled"
    assert lock_is_free(waiting)


def test_after_a_sigkill_the_next_run_waits_for_what_is_left_mends_and_tells_prefect(waiting: Toy) -> None:
    run = start(waiting)
    run.wait_for_stage()
    killed = run.flow_run().id
    assert psutil.pid_exists(int((waiting.root / "pid").read_text()))
    os.kill(run.process.pid, signal.SIGKILL)
    waiting.edit("code/second.py", WAITS, "")
    (waiting.root / "dvc.lock").write_bytes((waiting.root / "dvc.lock").read_bytes()[:-30])
    (waiting.root / "artifacts/second.partial").mkdir()
    after = start(waiting)
    code, output, _ = after.end()
    run.process.communicate()
    assert code == 0, output
    assert "dvc.lock was half-written" in output
    assert not (waiting.root / "artifacts/second.partial").exists()
    state = next(found for found in flow_runs(2) if found.id == killed).state
    assert (state.name, f"process {run.process.pid}" in state.message) == ("Crashed", True)
    assert {stage.action for stage in waiting.workspace.plan()} == {"skip"}
    assert lock_is_free(waiting)


def test_a_second_run_is_refused_with_the_firsts_pid_or_waits(waiting: Toy) -> None:
    first = start(waiting)
    first.wait_for_stage()
    refused = start(waiting)
    code, output, _ = (refused.process.wait(30), refused.process.communicate()[0], 0)
    assert code == 2, output
    assert f"process {first.process.pid} has been running it since 20" in output
    waits = start(waiting, {"if_busy": "wait"})
    assert waits.process.stdout is not None
    assert f"Waiting: process {first.process.pid}" in waits.process.stdout.readline()
    waiting.edit("code/second.py", WAITS, "")
    first.process.terminate()
    assert waits.process.wait(60) == 0, waits.process.communicate()[0]
    assert first.process.wait(10) == 130


def test_a_run_that_is_stopped_before_its_flow_begins_ends_as_quickly(waiting: Toy) -> None:
    run = start(waiting)
    lock, deadline = waiting.root / ".stillhouse/run.lock", time.monotonic() + 30
    while not (lock.exists() and lock.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)
    run.process.terminate()
    code, output, seconds = run.end()
    assert (code, seconds < LIMIT) == (130, True), (output, seconds)
    assert "Traceback" not in output
