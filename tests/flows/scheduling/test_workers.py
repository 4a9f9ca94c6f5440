"""Runs end with the worker that started them, which waits for them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.scheduling import workers

ROOT = Path(__file__).parents[3]
RUN = """
import sys, time
from pathlib import Path
from flows.scheduling.workers import Worker
worker = Worker()
Path(sys.argv[1]).touch()
while not worker.gone:
    time.sleep(0.05)
Path(sys.argv[2]).touch()
"""
WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def test_a_run_sees_that_its_worker_is_being_ended_and_the_worker_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = tmp_path / "sign"
    descriptor = os.open(sign, os.O_RDWR | os.O_CREAT)
    monkeypatch.setenv(workers.SIGN, str(sign))
    monkeypatch.setattr(workers, "ENDING_SECONDS", 0.5)
    worker = workers.Worker()
    assert not worker.gone
    started = time.monotonic()
    workers._dismiss(descriptor, sign)  # this process holds it still
    assert worker.gone
    assert time.monotonic() - started >= 0.5


def test_it_does_not_wait_for_runs_that_have_ended(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    started = time.monotonic()
    workers._dismiss(os.open(sign, os.O_RDWR | os.O_CREAT), sign)
    assert time.monotonic() - started < workers.ENDING_SECONDS / 2


def test_a_workers_environment_names_the_project_and_no_telemetry(tmp_path: Path) -> None:
    found = workers.environment(tmp_path)
    assert found[workers.PROJECT] == str(tmp_path)
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_run_sees_that_its_worker_was_killed(tmp_path: Path) -> None:
    up, seen = tmp_path / "up", tmp_path / "seen"
    command = [sys.executable, "-c", WORKER, RUN, str(up), str(seen)]
    worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    _wait_for(up)
    assert not seen.exists()
    worker.kill()
    worker.wait()
    _wait_for(seen)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
