"""Where MLflow keeps things, and what happens when it can't be reached."""

from __future__ import annotations

import dataclasses
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows import server
from flows.tracking import store
from flows.tracking.record import PipelineRecord
from flows.tracking.tracker import Tracker

Trackers = Callable[[], Tracker]


def test_the_default_store_is_absolute_and_the_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.tracking_uri(type(tmp_path)()) == f"sqlite:///{tmp_path}/.stillhouse/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example:5000")
    assert store.tracking_uri(tmp_path) == "http://example:5000"
    assert store.artifact_root("http://example:5000") is None


def test_passwords_are_not_shown() -> None:
    uri = "https://me:secret@example/mlflow"
    assert store.shown(uri) == "https://example/mlflow"
    assert "secret" not in store.shown(uri, f"API request to {uri}/api failed")


def test_runs_are_seen_where_a_running_ui_of_their_project_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_tracker: Trackers
) -> None:
    usual, chosen = "http://127.0.0.1:5000", "http://127.0.0.1:5091"
    tracker = make_tracker()
    assert store.web_address(store.tracking_uri(tmp_path)) == usual
    with server._only_ui(tmp_path) as write_note:
        write_note("http://127.0.0.1:4291", chosen)
        assert store.web_address(store.tracking_uri(tmp_path)) == chosen
        assert tracker.url("x").startswith(f"{chosen}/#/experiments/")
        for elsewhere in (f"sqlite:///{tmp_path}/mine.db", "sqlite:////mine.db", "sqlite://", "file:///x"):
            assert store.web_address(elsewhere) == usual
        assert store.web_address("https://me:secret@example/mlflow/") == "https://example/mlflow"
    assert store.web_address(store.tracking_uri(tmp_path)) == usual


def test_preparing_twice_keeps_the_database(empty_database: Path, make_tracker: Trackers) -> None:
    root = make_tracker().root
    database = root / ".stillhouse/mlflow/mlflow.db"
    before = database.stat().st_ino
    store.prepare(root)
    assert database.stat().st_ino == before


def test_a_database_of_an_older_schema_is_upgraded_with_what_it_holds(
    make_tracker: Trackers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.db import utils

    tracker = make_tracker()
    parent: Any = tracker.begin("inputs", "a run")
    upgraded: list[str] = []
    monkeypatch.setattr(utils, "_get_latest_schema_revision", lambda: "a newer one")
    monkeypatch.setattr(utils, "_upgrade_db", lambda engine: upgraded.append(str(engine.url)))
    uri = store.prepare(tracker.root)
    assert upgraded == [f"{uri}.new"]
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [(parent.run_id,)]


def test_a_draft_left_by_a_kill_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ".stillhouse/mlflow"
    folder.mkdir(parents=True)
    (folder / "mlflow.db.new").write_bytes(b"half")
    assert store.prepare(tmp_path).endswith("mlflow.db")
    assert [path.name for path in folder.glob("*.new")] == []


def test_a_file_that_is_no_database_is_a_readable_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(UserError) as caught:
        store.prepare(tmp_path)
    assert caught.value.kind == "tracking"
    assert (tmp_path / "x.db").read_bytes().startswith(b"not a database")


def test_a_dead_server_is_noticed_quickly_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: PipelineRecord
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    tracker, start = Tracker(tmp_path, "demo"), time.monotonic()
    with pytest.raises(UserError, match="does not answer"):
        tracker.begin("inputs", "a run")
    stream = tracker.follow(None, "teacher")
    stream.push([{"step": 1, "loss": 0.5}])
    stream.close()
    tracker.fail(None, "nothing")
    with pytest.raises(UserError) as caught:
        tracker.publish(finished_run)
    assert caught.value.kind == "tracking"
    assert time.monotonic() - start < 10


def test_a_server_that_takes_calls_and_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_GREETING_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        start = time.monotonic()
        with pytest.raises(UserError, match="could not be used"):
            Tracker(tmp_path, "demo").begin("inputs", "a run")
    assert time.monotonic() - start < 5


def test_what_a_dead_server_missed_is_published_later(
    make_tracker: Trackers, monkeypatch: pytest.MonkeyPatch, one_model: PipelineRecord
) -> None:
    tracker = make_tracker()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        with pytest.raises(UserError):
            tracker.publish(one_model)
    published = tracker.publish(dataclasses.replace(one_model))
    assert published.created
    assert set(published.runs) == {"lora"}


def test_a_deleted_experiment_is_named(make_tracker: Trackers) -> None:
    from mlflow import MlflowClient

    tracker = make_tracker()
    parent: Any = tracker.begin("inputs", "a run")
    MlflowClient(store.tracking_uri(tracker.root)).delete_experiment(parent.experiment_id)
    with pytest.raises(UserError, match="has been deleted") as caught:
        make_tracker().begin("inputs", "another run")
    assert f"MLFLOW_TRACKING_URI={store.tracking_uri(tracker.root)} mlflow experiments restore" in caught.value.remedy
