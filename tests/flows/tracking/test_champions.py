"""The champion in a real registry: aliases, decisions, files, and the model that is loaded back."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from components.errors import UserError
from components.ml.models.scoring import load_classifier, predict_logits
from flows.gating.champion import score
from flows.tracking import store
from flows.tracking.champions import CANDIDATE, CHAMPION, DECISION, PREVIOUS, Champions, Version
from flows.tracking.record import PipelineRecord
from flows.tracking.tracker import Tracker

Trackers = Callable[[], Tracker]
TEXTS = ["这部电影不好", "a good film", "bad"]


@pytest.fixture
def two(make_tracker: Trackers, one_model: PipelineRecord, finished_run: PipelineRecord) -> Champions:
    """Two versions; the second one is the candidate."""
    tracker = make_tracker()
    tracker.publish(one_model)
    other = dataclasses.replace(finished_run.models[0], name="lora")
    tracker.publish(dataclasses.replace(one_model, inputs_digest="inputs-2", lock_digest="lock-2", models=[other]))
    return Champions(tracker, "stillhouse")


def aliases(champions: Champions) -> dict[str, str]:
    return {alias: version.number for version in champions.versions() for alias in version.aliases}


def client(champions: Champions) -> MlflowClient:
    return MlflowClient(store.tracking_uri(champions.tracker.root))


def files(champions: Champions, version: Version) -> Path:
    return Path(urlsplit(client(champions).get_model_version_download_uri("stillhouse", version.number)).path)


def test_before_the_first_model_there_is_no_champion(make_tracker: Trackers) -> None:
    champions = Champions(make_tracker(), "stillhouse")
    assert champions.versions() == []
    assert champions.on(CHAMPION) is None
    with pytest.raises(UserError, match="no previous champion"):
        champions.to_roll_back()


def test_versions_tell_their_content_their_run_and_their_aliases(two: Champions, one_model: PipelineRecord) -> None:
    second, first = two.versions()
    assert (second.number, first.number) == ("2", "1")
    assert first.content == one_model.models[0].content
    assert first.run
    assert client(two).get_run(first.run).info.run_name == one_model.name
    assert (second.aliases, first.aliases, first.decision) == ((CANDIDATE,), (), None)


def test_promotion_keeps_the_one_before_and_twice_is_as_good_as_once(two: Champions) -> None:
    second, first = two.versions()
    two.promote(first, None)
    assert aliases(two) == {CANDIDATE: "2", CHAMPION: "1"}
    for _ in range(2):
        two.promote(second, "1")
        assert aliases(two) == {CANDIDATE: "2", CHAMPION: "2", PREVIOUS: "1"}


def test_who_was_compared_with_another_champion_is_not_promoted(two: Champions) -> None:
    second, first = two.versions()
    two.promote(first, None)
    for stale in (None, "7"):
        with pytest.raises(UserError, match="has become champion while version 2") as caught:
            two.promote(second, stale)
        assert caught.value.kind == "busy"
    assert aliases(two)[CHAMPION] == "1"


def test_a_rollback_of_a_champion_that_another_has_replaced_meanwhile_is_refused(two: Champions) -> None:
    second, first = two.versions()
    two.promote(first, None)
    two.promote(second, "1")
    with pytest.raises(UserError, match=r"Version 2 .* has become champion while version 3 was taken back"):
        two.roll_back(first, "3")
    assert aliases(two) == {CANDIDATE: "2", CHAMPION: "2", PREVIOUS: "1"}


def test_half_a_promotion_is_undone(two: Champions) -> None:
    second, first = two.versions()
    two.promote(first, None)
    client(two).set_registered_model_alias(two.name, PREVIOUS, "1")  # and then killed
    two.settle()
    assert aliases(two) == {CANDIDATE: "2", CHAMPION: "1"}
    two.tell(second, {"promoted": True, "reasons": [], "outcome": "better", "champion": {"version": "1"}})
    two.promote(second, "1")
    two.settle()
    assert aliases(two)[PREVIOUS] == "1"
    client(two).set_registered_model_alias(two.name, PREVIOUS, "2")
    two.settle()
    assert aliases(two)[PREVIOUS] == "1"


def test_a_rollback_has_nothing_before_it(two: Champions) -> None:
    second, first = two.versions()
    two.promote(first, None)
    two.promote(second, "1")
    champion, previous = two.to_roll_back()
    assert champion
    assert (champion.number, previous.number) == ("2", "1")
    two.roll_back(previous, champion.number)
    assert aliases(two) == {CANDIDATE: "2", CHAMPION: "1"}
    with pytest.raises(UserError, match="no previous champion"):
        two.to_roll_back()


def test_a_decision_is_kept_with_the_version_and_its_run(two: Champions) -> None:
    second, _ = two.versions()
    decision: dict[str, Any] = {"promoted": True, "reasons": ["它更好"], "ci": [0.1, 0.2], "groups": {}}
    two.tell(second, decision)
    two.tell_run(second.run, decision)
    assert two.versions()[0].decision == decision
    assert second.run
    assert "它更好" in client(two).get_run(second.run).data.tags[DECISION]
    changed = decision | {"promoted": False}
    two.tell(second, changed)
    assert two.versions()[0].decision == changed


def test_a_decision_with_many_groups_still_fits_into_a_tag(two: Champions) -> None:
    second, _ = two.versions()
    groups = {f"group {number}": -0.01 for number in range(500)}
    two.tell(second, {"promoted": False, "reasons": ["词" * 400] * 9, "groups": groups, "outcome": "tie"})
    found = two.versions()[0].decision
    assert found
    assert (found["outcome"], found["groups"], len(found["reasons"])) == ("tie", {}, 5)


def test_a_tag_that_somebody_else_wrote_is_no_decision(two: Champions) -> None:
    client(two).set_model_version_tag("stillhouse", "2", DECISION, "yes!")
    assert two.versions()[0].decision is None


def test_a_deleted_run_does_not_keep_a_decision_back(two: Champions) -> None:
    second, _ = two.versions()
    assert second.run
    client(two).delete_run(second.run)
    two.tell_run(second.run, {"promoted": True, "reasons": []})
    two.tell_run(None, {"promoted": True, "reasons": []})


def test_a_version_gives_the_logits_it_was_evaluated_with(two: Champions, finished_run: PipelineRecord) -> None:
    for version, model in zip(two.versions(), (finished_run.models[0], finished_run.models[-1]), strict=True):
        with two.loaded(version) as predict:
            labels, logits = predict(TEXTS)
            assert predict([])[0] == labels == ["negative", "正面"]
        expected = predict_logits(*load_classifier(model.folder), TEXTS, max_length=12)
        assert np.allclose(logits, expected, atol=1e-5)


def test_the_champion_says_of_the_test_rows_what_evaluation_said(
    two: Champions, finished_run: PipelineRecord, tmp_path: Path
) -> None:
    second = two.versions()[0]
    labels = ["正面", "negative"]  # today's order is another one
    identity = [str(second.content), "rows"]
    found = score(tmp_path / "gate", identity, finished_run.texts, labels, lambda: two.loaded(second), lambda *_: None)
    table = pq.read_table(finished_run.models[0].predictions)
    assert found.rows is not None
    assert found.predictions is not None
    assert list(found.rows) == table["row"].to_pylist()
    assert list(found.predictions) == [1 - int(np.argmax(logits)) for logits in table["logits"].to_pylist()]


def test_files_that_are_gone_are_told_before_anything_is_loaded(two: Champions) -> None:
    second, first = two.versions()
    two.promote(first, None)
    two.promote(second, "1")
    shutil.rmtree(files(two, first))
    for ask in (two.check_files, lambda version: two.loaded(version).__enter__()):
        with pytest.raises(UserError, match="files of version 1 of 'stillhouse' are gone") as caught:
            ask(first)
        assert caught.value.kind == "model"
    with pytest.raises(UserError, match="are gone"):
        two.to_roll_back()
    assert aliases(two)[CHAMPION] == "2"
    two.check_files(second)


def test_a_model_that_no_longer_loads_is_told_as_such(two: Champions) -> None:
    _, first = two.versions()
    for path in files(two, first).rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match="model of version 1 no longer works") as caught, two.loaded(first):
        pass
    assert caught.value.kind == "model"


def test_a_server_that_is_away_is_no_missing_champion(two: Champions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(UserError) as caught:
        Champions(Tracker(two.tracker.root, "demo"), "stillhouse").on(CHAMPION)
    assert caught.value.kind == "tracking"


def test_the_page_of_a_version_tells_what_it_is_where_it_came_from_and_why_it_was_promoted_or_not(
    two: Champions, one_model: PipelineRecord
) -> None:
    def card(number: str) -> str:
        return str(client(two).get_model_version("stillhouse", number).description)

    second, first = two.versions()
    assert card("1").startswith("LoRA student: 87.0% accuracy")
    assert "**Not decided yet.**" in card("1")
    for told in (one_model.data_hash, one_model.git_commit, "teacher 1.0.0+abc1234", str(first.content)):
        assert told in card("1")
    assert f"[{one_model.name}](#/experiments/1/runs/{first.run})" in card("1")
    two.tell(second, {"promoted": False, "outcome": "tie", "reasons": ["It is no better."], "time": "2026-11-23T10:00"})
    assert "**Not promoted** (tie, 2026-11-23 10:00 UTC). It is the candidate now.\n\n- It is no better." in card("2")
    two.promote(second, None)
    two.promote(first, "2")
    assert "It is the candidate and the previous now." in card("2")
    overview = client(two).get_registered_model("stillhouse").description
    assert "- **Version 2** (candidate, previous): LoRA student, " in overview
    assert "; not promoted: tie; " in overview
    assert "- **Version 1** (champion): " in overview
    two.roll_back(second, "1")
    assert "It is the candidate and the champion now." in card("2")
    assert "now." not in card("1")
