"""Whatever is killed while a model trains, and however a run is stopped, the next one goes on to the same result."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

Project = Any
LIMIT = 10.0
EPOCHS = 25


def count(project: Project, database: str, query: str) -> list[tuple[Any, ...]]:
    """Ask one of the embedded databases."""
    with closing(sqlite3.connect(project.root / ".stillhouse" / database)) as connection:
        return connection.execute(query).fetchall()


def runs(project: Project) -> dict[str, tuple[str, str]]:
    """Each MLflow run: its name and status."""
    rows = count(project, "mlflow/mlflow.db", "SELECT run_uuid, name, status FROM runs")
    return {run: (name, status) for run, name, status in rows}


def processes_in(folder: Path) -> dict[int, list[str]]:
    """Our processes whose working folder is ``folder``, with their command lines."""
    found = psutil.process_iter(["cwd", "cmdline"])
    return {one.pid: one.info["cmdline"] or [] for one in found if one.info["cwd"] == str(folder.resolve())}


def process(project: Project, module: str) -> int:
    """The process that runs ``python -m module``."""
    return next(pid for pid, words in processes_in(project.root).items() if words[1:3] == ["-m", module])


def checkpoints(project: Project) -> dict[Path, float]:
    """The whole checkpoints of the distillation, and when each was written."""
    folder, found = project.root / ".stillhouse/checkpoints/distill", {}
    with contextlib.suppress(FileNotFoundError):  # older ones go as newer ones come
        for path in folder.glob("**/whole.json"):
            found[path] = path.stat().st_mtime
    return found


def start(project: Project, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        project.command("stillhouse", "run", "--only", "distill", *options),
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_checkpoint(project: Project, run: subprocess.Popen[str]) -> None:
    """Until the run has written one of its own."""
    started, deadline = time.time(), time.monotonic() + 120
    while not any(written > started for written in checkpoints(project).values()):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end(project: Project, run: subprocess.Popen[str]) -> tuple[int, str, float]:
    """Exit code, output, and the seconds until nothing of the run was left."""
    started = time.monotonic()
    output = run.communicate(timeout=240)[0]
    while processes_in(project.root) and time.monotonic() - started < 30:
        time.sleep(0.05)
    assert not processes_in(project.root)
    return run.returncode, output, time.monotonic() - started


def state_of_flow_run(project: Project) -> tuple[str, str]:
    """Name and message of the newest flow run's state."""
    query = (
        "SELECT flow_run_state.name, flow_run_state.message FROM flow_run "
        "JOIN flow_run_state ON flow_run.state_id = flow_run_state.id ORDER BY flow_run.created DESC LIMIT 1"
    )
    return count(project, "prefect/prefect.db", query)[0]


@pytest.fixture
def training(copied: Project) -> Project:
    """A project whose distillation takes some seconds, with a checkpoint every ten steps."""
    copied.edit(lambda params: params["distill"]["phases"]["distill"].update(epochs=EPOCHS))
    copied.edit(lambda params: params.update(checkpoints={"every": 10}))
    return type(copied)(copied.root)  # with a Prefect server of its own, whose database is asked


def test_after_any_kill_the_next_run_resumes_and_ends_in_the_same_bytes(training: Project) -> None:
    known = runs(training)
    steps = [0]
    for victim in ("components", "dvc", "flows.cli"):
        run = start(training)
        wait_for_checkpoint(training, run)
        os.kill(process(training, victim), signal.SIGKILL)
        end(training, run)
        planned = json.loads(training.run("stillhouse", "plan", "--json", "--only", "distill").stdout)["stages"]
        assert [stage["action"] for stage in planned] == ["resume"]
        steps.append(planned[0]["step"])
    assert steps == sorted(set(steps))
    code, output, _ = end(training, start(training))
    assert (code, "distill" in output) == (0, True), output
    new = {run: name for run, (name, _) in runs(training).items() if run not in known}
    assert len(new) == 2  # the parent and its child, taken up again each time
    assert "student" in new.values()
    assert not checkpoints(training)
    resumed = training.lock()["distill"]
    training.run("dvc", "repro", "--single-item", "--force", "--quiet", "distill")  # in one go
    assert training.lock()["distill"] == resumed


def test_sigterm_leaves_nothing_at_work_and_says_what_happened(training: Project) -> None:
    run = start(training)
    wait_for_checkpoint(training, run)
    run.terminate()
    code, output, seconds = end(training, run)
    assert (code, seconds < LIMIT) == (130, True), (output, seconds)
    assert "■ distill" in output
    assert "Traceback" not in output
    name, message = state_of_flow_run(training)
    assert (name, "cancelled by SIGTERM during distill" in message) == ("Cancelled", True)
    assert (training.root / ".stillhouse/run.lock").read_text() == ""
    reason = "SELECT value FROM tags WHERE key = 'stillhouse.failure'"
    assert any(
        "cancelled by SIGTERM during distill" in value for (value,) in count(training, "mlflow/mlflow.db", reason)
    )
    assert "KILLED" in {status for _, status in runs(training).values()}
