"""A published run that is gone from its server is noticed; a server that can't tell is not held against it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from flows.tracking import presence, store

Answers = dict[str, tuple[int, object]]


@pytest.fixture
def embedded(published_root: Path, tmp_path: Path) -> tuple[str, str]:
    """A copy of a store with a published run: its address, and the run's id."""
    from mlflow import MlflowClient

    shutil.copytree(published_root / ".stillhouse", tmp_path / ".stillhouse")
    uri = store.tracking_uri(tmp_path)
    client = MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "demo"]
    return uri, client.search_runs([experiment.experiment_id])[0].info.run_id


def test_a_run_in_the_embedded_store_is_there_until_it_is_deleted(embedded: tuple[str, str]) -> None:
    from mlflow import MlflowClient

    uri, run_id = embedded
    assert presence.holds(uri, run_id)
    assert not presence.holds(uri, "another")
    MlflowClient(uri).delete_run(run_id)
    assert not presence.holds(uri, run_id)


def test_a_deleted_store_holds_nothing_and_is_not_made_again(tmp_path: Path) -> None:
    assert not presence.holds(store.tracking_uri(tmp_path), "some")
    assert not list(tmp_path.iterdir())


def test_a_damaged_store_holds_nothing(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"no database" * 100)
    assert not presence.holds(f"sqlite:///{database}", "some")


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], str]]:
    """A server that answers as MLflow's REST interface does; gives its address."""
    servers: list[HTTPServer] = []

    def start(answers: Answers) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                status, body = answers[query["run_id"][0]]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None: ...

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_is_asked_for_the_run(serve: Callable[[Answers], str]) -> None:
    address = serve(
        {
            "there": (200, {"run": {"info": {"lifecycle_stage": "active"}}}),
            "deleted": (200, {"run": {"info": {"lifecycle_stage": "deleted"}}}),
            "unknown": (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}),
            "proxy": (404, {"message": "no such page"}),
            "forbidden": (403, {}),
        }
    )
    held = {name: presence.holds(address, name) for name in ("there", "deleted", "unknown", "proxy", "forbidden")}
    assert held == {"there": True, "deleted": False, "unknown": False, "proxy": True, "forbidden": True}


def test_a_server_that_does_not_answer_is_not_held_against_the_run() -> None:
    assert presence.holds("http://127.0.0.1:1", "some")
