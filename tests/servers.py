"""Servers for tests: Prefect's, and MLflow's that can be killed and started again over the same store."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import HOST, answers, free_port, start_prefect, wait_until_up

STARTS_WITHIN = 180.0


def make_prefect_database(home: Path) -> None:
    """A new database as ``PREFECT_HOME/prefect.db``: its hundred migrations take longer than a server's start."""
    draft = home.with_name(f"{home.name}.partial")
    draft.mkdir(exist_ok=True)
    environment = os.environ | {"PREFECT_HOME": str(draft)}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    draft.rename(home)


@contextlib.contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """The address of a Prefect API over the database in ``folder/prefect``, or a new one there."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        server = start_prefect(folder, port, ui=False)
    try:
        wait_until_up(server, f"http://{HOST}:{port}/api/health", "the Prefect server")
        yield f"http://{HOST}:{port}/api"
    finally:
        server.end()


class MlflowServer:
    """``address`` stays the same over kills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://{HOST}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it over what it held before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        store, artifacts = f"sqlite:///{self.folder}/mlflow.db", (self.folder / "artifacts").as_uri()
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", store, "--artifacts-destination", artifacts]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + STARTS_WITHIN
        while not answers(f"{self.address}/health"):
            assert time.monotonic() < deadline, "the MLflow server did not start"
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill -9 the server and its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def finished_runs(self) -> int:
        """How many runs it holds that ended well."""
        from mlflow import MlflowClient

        client = MlflowClient(self.address)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return len(client.search_runs(experiments, "attributes.status = 'FINISHED'"))


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """A running server; ended afterwards."""
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
