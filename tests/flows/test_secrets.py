"""A planted secret, in the environment and in addresses, is found again in no log, file, database or message."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows.server import HOST
from flows.tracking import store
from flows.tracking.record import PipelineRecord
from flows.tracking.tracker import Parent, Tracker
from tests.flows.tracking.conftest import *  # noqa: F403  # the tiny record
from tests.servers import MlflowServer, mlflow_server

Toy = Any
ROOT = Path(__file__).parents[2]
SECRET = "planted-s3cret-4711"
NOWHERE = f"{HOST}:1"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": f"id-{SECRET}",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "MLFLOW_TRACKING_USERNAME": f"user-{SECRET}",
    "MLFLOW_TRACKING_PASSWORD": SECRET,
    "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET,
    "TEAM_WEBHOOK": f"https://hooks.example/{SECRET}",
    "HF_TOKEN": SECRET,
}


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / "server") as running:
        yield running


def holding(*folders: Path) -> list[str]:
    """The files that hold the secret, or are named after it."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if SECRET in str(path) or SECRET.encode() in path.read_bytes()]


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\0\1" + SECRET.encode() + b"\2")
    assert len(holding(tmp_path)) == 1


def test_a_publication_to_a_server_whose_address_has_a_password(
    server: MlflowServer,
    one_model: PipelineRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address.replace("://", f"://me:{SECRET}@"))
    with caplog.at_level(logging.INFO):
        tracker = Tracker(tmp_path, "demo")
        parent = tracker.begin(one_model.inputs_digest, one_model.name)
        tracker.follow(parent, "lora").push([{"step": 1, "loss": 0.5}])
        published = tracker.publish(one_model)
    assert published.registered_version == "1"
    assert holding(tmp_path, server.folder) == []
    told = [caplog.text, *capfd.readouterr(), repr(published), repr(parent)]
    assert not any(SECRET in text for text in told)


@pytest.mark.parametrize("login", [f"me:{SECRET}", SECRET, f"{SECRET}:"])
def test_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, login: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{login}@{NOWHERE}")
    monkeypatch.setattr(store, "_GREETING_SECONDS", 1)
    with pytest.raises(UserError) as caught:
        Tracker(tmp_path, "demo").begin("inputs", "run")
    Tracker(tmp_path, "demo").follow(Parent("id", "1", "url"), "lora").push([{"step": 1, "loss": 0.5}])
    assert NOWHERE in str(caught.value)
    assert caplog.text  # a warning of what could not be followed
    assert SECRET not in str(caught.value) + caplog.text + store.web_address(store.tracking_uri(tmp_path))


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_fails_and_whose_remote_refuses_us(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL

    settings = {"PREFECT_API_URL": PREFECT_API_URL.value(), "PYTHONPATH": str(ROOT)}
    settings |= {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@{NOWHERE}"}
    with toy.repo() as repo, repo.config.edit("local") as config:
        config["remote"] = {"store": {"url": f"http://me:{SECRET}@{NOWHERE}/store", "password": SECRET}}
        config["core"] = {"remote": "store"}
    (toy.root / ".dvc" / "config.local").chmod(0o600)
    toy.edit("code/second.py", "\n", "\nimport broken\n")
    command = [sys.executable, "-m", "tests.flows.toy_run"]
    done = subprocess.run(command, cwd=toy.root, env=os.environ | settings, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert "broken" in said
    assert SECRET not in said
    known = {str(toy.root / ".dvc" / "config.local")}
    assert set(holding(toy.root)) <= known
    assert SECRET not in told_by_prefect()


def told_by_prefect() -> str:
    """All logs and artifacts of Prefect's API."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return "\n".join([*map(repr, client.read_logs()), *map(repr, client.read_artifacts())])
