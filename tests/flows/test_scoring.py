"""The flow `scoring`: its states and its artifact, on a real Prefect API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import notifications
from flows import scoring as module
from flows.inference import log
from tests.flows.inference.test_scoring import model


@pytest.fixture
def told(tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events that somebody was told of."""
    told: list[str] = []

    @contextlib.contextmanager
    def loaded(root: Path, params: Any, wanted: str | None) -> Iterator[Any]:
        yield model()

    monkeypatch.setattr(module, "loaded", loaded)
    monkeypatch.setattr(notifications, "notify", lambda root, event, *_: told.append(event))
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[1] / "params.yaml").read_bytes())
    pq.write_table(pa.table({"text": ["x", "很好", "xxxxx"]}), tmp_path / "in.parquet")
    monkeypatch.chdir(tmp_path)
    return told


def artifact() -> str:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["scored"]))
        return str(client.read_artifacts(artifact_filter=wanted)[-1].data)


def test_a_file_is_labelled_logged_and_shown_with_the_share_of_each_label(told: list[str], tmp_path: Path) -> None:
    state = module.scoring("in.parquet", "out.parquet", log=True, return_state=True)
    assert state.is_completed(), state.message
    assert "3 rows of in.parquet labelled by 小模型/3" in str(state.message)
    assert pq.read_table(tmp_path / "out.parquet")["predicted_label"].to_pylist() == ["negative", "negative", "正面"]
    assert "| negative | 2 | 66.7% |" in artifact()
    assert len(log.read(tmp_path)) == 1
    assert module.scoring("in.parquet", "out.parquet", return_state=True).is_completed()  # again, over the old
    assert told == []


def test_a_mistake_fails_the_run_in_its_words_and_somebody_is_told(told: list[str]) -> None:
    state = module.scoring("missing.parquet", "out.parquet", return_state=True)
    assert state.is_failed()
    assert "missing.parquet" in str(state.message)
    assert told == ["failure"]
