"""Runs that are under way: adopted after a kill, followed while they train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.tracking import store
from flows.tracking.stream import Stream
from flows.tracking.tracker import Tracker

Trackers = Callable[[], Tracker]
LINES = [{"phase": "general", "step": step, "loss": 1 / step, "learning_rate": 1e-4} for step in range(1, 6)]
END = {"phase": "general", "step": 5, "epoch": 1.0, "eval_loss": 0.4, "eval_accuracy": 0.9}


@pytest.fixture
def client(make_tracker: Trackers) -> MlflowClient:
    return MlflowClient(store.prepare(make_tracker().root))


def steps(client: MlflowClient, run_id: str, name: str) -> list[int]:
    return sorted(metric.step for metric in client.get_metric_history(run_id, name))


def test_lines_become_metrics_of_a_flat_child(make_tracker: Trackers, client: MlflowClient) -> None:
    tracker = make_tracker()
    parent: Any = tracker.begin("inputs", "2026-11-22 demo 3f9c", {"who": "me"})
    stream: Any = tracker.follow(parent, "teacher")
    stream.push(LINES[:2])
    stream.push([*LINES[2:], END])
    stream.close()
    child = client.get_run(stream.run_id)
    assert child.data.tags["mlflow.parentRunId"] == parent.run_id
    assert (child.info.run_name, child.info.status) == ("teacher", "FINISHED")
    assert steps(client, stream.run_id, "train/loss") == [1, 2, 3, 4, 5]
    assert child.data.metrics["validation/accuracy"] == 0.9
    assert client.get_run(parent.run_id).info.status == "RUNNING"
    assert parent.url.endswith(f"/#/experiments/{parent.experiment_id}/runs/{parent.run_id}")


def test_whatever_is_measured_on_validation_rows_becomes_a_curve(make_tracker: Trackers, client: MlflowClient) -> None:
    tracker = make_tracker()
    stream: Any = tracker.follow(tracker.begin("inputs", "a run"), "teacher")
    told = {"eval_perplexity": 7.5, "eval_mean/accuracy": 0.8, "eval_词性/macro_f1": 0.7, "eval_a?b/accuracy": 0.6}
    for _ in range(2):  # a second stream, after a kill
        stream.push([*LINES, END | told])
        stream = tracker.follow(tracker.begin("inputs", "a run"), "teacher")
    found = client.get_run(stream.run_id).data.metrics
    assert {name.removeprefix("validation/"): value for name, value in found.items() if name.startswith("val")} == {
        **{"loss": 0.4, "accuracy": 0.9, "perplexity": 7.5, "mean/accuracy": 0.8},
        **{"词性/macro_f1": 0.7, "a_3f_b/accuracy": 0.6},
    }
    assert steps(client, stream.run_id, "validation/mean/accuracy") == [5]
    assert steps(client, stream.run_id, "train/epoch") == []


@pytest.mark.parametrize("end", [None, "FAILED", "KILLED"])
def test_an_unfinished_parent_is_adopted_and_its_curve_goes_on(
    make_tracker: Trackers, client: MlflowClient, end: str | None
) -> None:
    first = make_tracker()
    parent: Any = first.begin("inputs", "a run")
    first.follow(parent, "teacher").push(LINES[:3])
    if end:
        first.fail(parent, "the disk burnt", end)
        assert client.get_run(parent.run_id).info.status == end
        assert client.get_run(parent.run_id).data.tags["stillhouse.failure"] == "the disk burnt"
    second = make_tracker()
    again = second.begin("inputs", "a later attempt")
    assert again == parent
    run = client.get_run(parent.run_id)
    assert run.info.status == "RUNNING"
    assert "stillhouse.failure" not in run.data.tags
    stream: Any = second.follow(again, "teacher")
    stream.push(LINES)
    assert steps(client, stream.run_id, "train/loss") == [1, 2, 3, 4, 5]


def test_other_inputs_get_another_parent(make_tracker: Trackers) -> None:
    tracker = make_tracker()
    assert tracker.begin("one", "a") != tracker.begin("two", "b")


def test_a_failing_server_ends_the_stream_and_not_the_training(
    make_tracker: Trackers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = make_tracker()
    stream = tracker.follow(tracker.begin("inputs", "a run"), "teacher")

    def break_down(*args: object, **kwargs: object) -> None:
        raise MlflowException("gone")

    monkeypatch.setattr(MlflowClient, "log_batch", break_down)
    for line in LINES:
        stream.push([line])
    stream.close()
    assert [record.message.count("gone") for record in caplog.records] == [1]


def test_a_stream_without_a_parent_is_silent(make_tracker: Trackers, caplog: pytest.LogCaptureFixture) -> None:
    stream = make_tracker().follow(None, "teacher")
    stream.push(LINES)
    stream.close("FAILED")
    assert isinstance(stream, Stream)
    assert not caplog.records
