"""Schedules that fire by themselves: a real Prefect server, a real worker, the tiny project in a worktree."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import server

Project = Any
Run = dict[str, Any]
PREFECT_YAML = """
name: stillhouse
build:
  - prefect.deployments.steps.run_shell_script:
      {id: branch, script: git symbolic-ref --short HEAD, stream_output: false}
pull:
  - prefect.deployments.steps.set_working_directory: {directory: "{{ $STILLHOUSE_PROJECT }}"}
deployments:
  - name: often
    entrypoint: flows/scheduling/scheduled.py:scheduled
    parameters: {revision: "{{ branch.stdout }}", if_busy: cancel}
    schedules: [{interval: 20, timezone: Asia/Shanghai}]
    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
    work_pool: {name: stillhouse}
  - name: on-demand
    entrypoint: flows/scheduling/scheduled.py:scheduled
    parameters: {revision: "{{ branch.stdout }}", if_busy: cancel}
    work_pool: {name: stillhouse}
"""


@dataclass(frozen=True)
class Served:
    """A project whose deployments are registered, and a worker that carries them out."""

    project: Project
    api: str
    said: str
    worker: subprocess.Popen[bytes]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call Prefect's API, with a body by POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def deployment(self, name: str) -> dict[str, Any]:
        return dict(self.ask(f"/deployments/name/scheduled/{name}"))

    def runs(self, name: str) -> list[Run]:
        """The flow runs of a deployment, by the time at which they were to start."""
        only = {"deployments": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return list(self.ask("/flow_runs/filter", only))

    def until(self, found: Callable[[], Any], seconds: float) -> Any:
        """What ``found`` gives once it gives something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if result := found():
                return result
            assert self.worker.poll() is None
            time.sleep(0.5)
        log = (self.project.root / ".stillhouse" / "worker.log").read_text(encoding="utf-8")
        raise AssertionError(f"nothing within {seconds} s; the worker said:\n{log[-6000:]}")

    def at_work(self) -> list[str]:
        """The processes of runs: Prefect's, and all that works in a worktree."""
        return [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cmdline", "cwd"])
            if process.info["cmdline"] and _is_of_a_run(self.project.root, process.info)
        ]


def _is_of_a_run(root: Path, process: dict[str, Any]) -> bool:
    folder, command = process["cwd"] or "", " ".join(process["cmdline"])
    return folder.startswith(f"{root}/.stillhouse/worktrees") or (folder == str(root) and "prefect.engine" in command)


@pytest.fixture
def served(copied: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """`stillhouse deploy` and `stillhouse worker` against a Prefect server of its own."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    (copied.root / "prefect.yaml").write_text(PREFECT_YAML, encoding="utf-8")
    copied.git("add", "prefect.yaml", "dvc.lock")
    copied.git("commit", "--quiet", "-m", "schedules and results")
    port = server.free_port()
    prefect, api = server.start_prefect(copied.root, port, ui=False), f"http://127.0.0.1:{port}/api"
    log = (copied.root / ".stillhouse" / "worker.log").open("wb")
    worker = None
    try:
        server.wait_until_up(prefect, f"{api}/health", "Prefect")
        said = copied.run("stillhouse", "deploy", PREFECT_API_URL=api).stdout
        worker = subprocess.Popen(
            copied.command("stillhouse", "worker"),
            cwd=copied.root,
            env=copied.environment() | {"PREFECT_API_URL": api},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        yield Served(copied, api, said, worker)
    finally:
        if worker:
            worker.terminate()
            worker.wait(30)
        prefect.end()
        log.close()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_schedule_fires_trains_once_and_then_finds_nothing_changed_and_a_cancelled_run_leaves_nothing(
    served: Served,
) -> None:
    # It says what it registered, with the time zone.
    assert "Asia/Shanghai" in served.said
    assert "scheduled/on-demand" in served.said

    # The schedule fires by itself, and the first run does what the results still lack.
    def ended(name: str) -> list[Run]:
        runs = served.runs("often")
        assert not [run for run in runs if run["state_name"] in ("Failed", "Crashed")], runs
        return [run for run in runs if run["state_name"] == name]

    first = served.until(lambda: ended("Completed"), 150)[0]
    assert first["auto_scheduled"]
    assert first["parameters"]["revision"] in ("main", "master")
    folder = served.project.root / ".stillhouse/worktrees/scheduled-often"
    assert (folder / "artifacts/evaluate/metrics.json").is_file()

    # The next one to fire finds nothing to do, in less than 30 seconds.
    def idle() -> list[Run]:
        return [run for run in ended("NothingChanged") if moment(run["start_time"]) > moment(first["end_time"])]

    second = served.until(idle, 90)[0]
    assert second["auto_scheduled"]
    assert second["state"]["message"] == "nothing changed"
    assert (moment(second["end_time"]) - moment(second["expected_start_time"])).total_seconds() < 30
    deployment = served.deployment("often")
    served.ask(f"/deployments/{deployment['id']}/pause_deployment", {})

    # Asked for with a parameter of its own, it trains; while it does, another one is cancelled.
    asked = {"parameters": {"overrides": {"teacher.phases.general.lr": 4e-3}}, "state": {"type": "SCHEDULED"}}
    on_demand = f"/deployments/{served.deployment('on-demand')['id']}/create_flow_run"
    training = served.ask(on_demand, asked)["id"]
    served.until(lambda: any("-m components" in command for command in served.at_work()), 90)
    other = served.ask(on_demand, asked)["id"]

    def state(run: str) -> str:
        return str(served.ask(f"/flow_runs/{run}")["state_type"])

    served.until(lambda: state(other) == "CANCELLED", 60)
    assert state(training) == "RUNNING"

    # Cancelled in Prefect, it ends with all that it had started.
    served.ask(f"/flow_runs/{training}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    asked_at = time.monotonic()
    served.until(lambda: not served.at_work(), 30)
    assert time.monotonic() - asked_at < 15  # some 3 on a machine that does nothing else
    served.until(lambda: state(training) == "CANCELLED", 30)
