"""The flow `monitoring`: its states, its artifact, and whom it tells, on a real Prefect API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows import monitoring as module
from flows import notifications
from flows.drift import report

TEST = {
    "name": "confidence",
    "kind": "KS distance",
    "effect": 0.2,
    "threshold": 0.1,
    "p": 1e-6,
    "p_adjusted": 1e-5,
    "reference": {"rows": 200, "median": 0.98, "p95": 0.99},
    "incoming": {"rows": 300, "median": 0.7, "p95": 0.9},
    "drifted": True,
}
FOUND: dict[str, Any] = {
    "outcome": "drift",
    "model": {"name": "小模型", "version": "3", "content": "c"},
    "since": "2026-11-16T12:00:00+00:00",
    "rows": 300,
    "other_models": {},
    "tests": [TEST],
    "labels": None,
    "notes": [],
    "retraining": None,
    "rules": {"min_rows": 200, "min_labels": 50, "thresholds": {"accuracy": 0.03}},
}


@pytest.fixture
def told(tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the flow is going to find, a report or an error, and the events that somebody was told of."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[1] / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {"events": [], "found": FOUND, "bodies": [], "warnings": []}

    def monitor(*_: Any) -> dict[str, Any]:
        if isinstance(told["found"], Exception):
            raise told["found"]
        report.write(tmp_path, told["found"])
        return dict(told["found"])

    monkeypatch.setattr(module, "monitor", monitor)
    monkeypatch.setattr(module, "champions", lambda *_: None)

    def notify(root: Path, event: str, subject: str, body: str) -> list[str]:
        told["events"].append(event)
        told["bodies"].append(body)
        return list(told["warnings"])

    monkeypatch.setattr(notifications, "notify", notify)
    return told


def run() -> Any:
    return module.monitoring(return_state=True)


def artifact() -> str:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["monitoring"]))
        return str(client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC)[0].data)


def test_drift_is_an_outcome_with_a_page_and_is_told_once_for_each_model_and_kind(told: dict[str, Any]) -> None:
    assert [run().name for _ in range(2)] == ["Drift", "Drift"]
    assert told["events"] == ["drift"]
    assert "Drift of confidence: 300 rows of 小模型/3" in artifact()
    told["found"] = {**FOUND, "outcome": "no drift", "tests": []}
    state = run()
    assert (state.name, state.is_completed(), told["events"]) == ("NoDrift", True, ["drift"])
    told["found"] = FOUND
    run()
    told["found"] = {**FOUND, "model": {**FOUND["model"], "version": "4"}}
    run()
    assert told["events"] == ["drift"] * 3


def test_looking_by_hand_silences_nobody_and_a_day_without_rows_is_no_news(
    told: dict[str, Any], tmp_path: Path
) -> None:
    report.write(tmp_path, FOUND)  # as `stillhouse monitor` does
    run()
    assert told["events"] == ["drift"]
    told["found"] = {**FOUND, "outcome": "nothing logged", "tests": []}
    run()
    report.write(tmp_path, {**FOUND, "outcome": "no drift", "tests": []})
    told["found"] = FOUND
    run()
    assert told["events"] == ["drift"]


def test_drift_that_a_block_could_not_be_told_of_is_told_again(told: dict[str, Any]) -> None:
    told["warnings"] = ["slack-webhook/team was not notified: it answered 500"]
    run()
    told["warnings"] = []
    for _ in range(2):
        run()
    assert told["events"] == ["drift"] * 2


def test_neither_message_nor_page_nor_log_shows_words_of_the_texts(
    told: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    changed = {"reference": {"rows": 9, "more here": ["secretly"]}, "incoming": {"rows": 9, "more here": []}}
    examples = {"unmatched": ["a secret text"], "conflicting": ["another secret"]}
    labels = {"key": "text", "rows": 0, "unmatched": 1, "conflicting": 1, "unknown": 0, "examples": examples}
    words = {**TEST, "name": "word frequencies", **changed}
    told["found"] = {**FOUND, "tests": [TEST, words], "labels": labels}
    run()
    assert "1 text in no row of this model" in told["bodies"][0]
    assert "1 text in no row of this model" in artifact()
    assert "1 text in no row of this model" in caplog.text
    assert "secret" not in told["bodies"][0] + artifact() + caplog.text
    shown = " ".join(report.sentences(told["found"]))
    assert all(word in shown for word in ("secretly", "a secret text", "another secret"))


def test_mistakes_and_a_training_that_could_not_be_started_fail_with_their_reason(told: dict[str, Any]) -> None:
    told["found"] = UserError("The log is torn.", "Mend it.", "log")
    assert (run().message, told["events"]) == ("The log is torn.\nMend it.", ["failure"])
    start = {"deployment": "scheduled/x", "run": None, "new": False, "problem": "no such deployment"}
    told["found"] = {**FOUND, "retraining": start}
    state = run()
    assert (state.is_failed(), state.message) == (True, "no such deployment")
