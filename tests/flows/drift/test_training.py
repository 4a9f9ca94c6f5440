"""Drift starts the training deployment once for each model and version of the data, on a real Prefect API."""

from __future__ import annotations

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
