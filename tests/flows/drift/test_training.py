"""Drift starts the training deployment once for each model and version of the data, on a real Prefect API."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows import server
from flows.drift import training
from flows.repo.workspace import Workspace


@pytest.fixture
def deployment(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A deployment of the flow `scheduled`, as `stillhouse deploy` registers one; nothing carries its runs out."""
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    monkeypatch.setenv("PREFECT_API_URL", str(get_current_settings().api.url))
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("scheduled")
        client.create_deployment(flow_id=flow, name="after-drift")
    return "after-drift"


def test_the_same_drift_starts_one_run_and_another_model_or_other_data_a_second(
    deployment: str, tmp_path: Path
) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 1.dir\n  path: data\n")
    first, again = (training.start(Workspace(tmp_path), deployment, "model 1") for _ in range(2))
    assert (first["problem"], first["new"], first["deployment"]) == (None, True, "scheduled/after-drift")
    assert again == {**first, "new": False}
    other = training.start(Workspace(tmp_path), deployment, "model 2")
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 2.dir\n  path: data\n")
    assert len({first["run"], other["run"], training.start(Workspace(tmp_path), deployment, "model 1")["run"]}) == 3


@pytest.mark.parametrize("kind", ["FAILED", "CRASHED", "CANCELLED"])
def test_a_run_that_came_to_nothing_stands_in_no_ones_way(deployment: str, tmp_path: Path, kind: str) -> None:
    model = f"model of a {kind} run"
    lost = training.start(Workspace(tmp_path), deployment, model)
    ended(lost["run"], kind)
    second, again = (training.start(Workspace(tmp_path), deployment, model) for _ in range(2))
    assert second["run"] != lost["run"]
    assert (second["new"], second["failed"], again) == (True, 1, {**second, "new": False})
    ended(second["run"], "COMPLETED")
    assert training.start(Workspace(tmp_path), deployment, model) == {**second, "new": False}


def ended(run: str, kind: str) -> None:
    """A run that ended so."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.objects import State, StateType

    with get_client(sync_client=True) as client:
        (found,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run])))
        client.set_flow_run_state(found.id, State(type=StateType(kind)), force=True)


class Refusing(BaseHTTPRequestHandler):
    """Answers that it is well, and everything else with a code."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.endswith("/health") else int(self.path.split("/")[1]))
        self.end_headers()
        self.wfile.write(b"true" if self.path.endswith("/health") else b"{}")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(("code", "said"), [(401, "answered 401 Unauthorized"), (500, "answered 500")])
def test_a_server_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/{code}"
        monkeypatch.setenv("PREFECT_API_URL", address)
        with temporary_settings({PREFECT_API_URL: address}):
            found = training.start(Workspace(tmp_path), "on-demand", "model 1")
        server.shutdown()
    assert (found["run"], said in found["problem"]) == (None, True), found["problem"]


def test_an_unknown_deployment_is_told(deployment: str, tmp_path: Path) -> None:
    found = training.start(Workspace(tmp_path), "missing", "model 1")
    assert found["run"] is None
    assert "knows no deployment scheduled/missing" in found["problem"]
    assert "`stillhouse deploy missing`" in found["problem"]


def test_without_a_server_that_stays_training_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(server, "running_ui", lambda root: None)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        found = training.start(Workspace(tmp_path), "on-demand", "model 1")
    assert "stillhouse ui" in found["problem"]
