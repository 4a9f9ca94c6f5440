"""A sweep in MLflow: one parent, flat children, nothing twice, and nothing lost when it can't be reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.tracking import store
from flows.tracking.sweeps import CombinationRecord, SweepTracker

SCORES = {"lora/accuracy": 0.9, "lora/accuracy_数学": 0.8, "gain_distillation": 0.01}


def record(number: int, failure: str | None = None) -> CombinationRecord:
    metrics = {} if failure else SCORES
    values = {"distill.temperature": number, "distill.student.layers": [0, 2]}
    return CombinationRecord(f"temperature {number}", f"digest {number}", values, metrics, "lock", failure=failure)


def found(root: Path) -> tuple[Run, dict[str, Run]]:
    """The parent and its children by name."""
    client = MlflowClient(store.tracking_uri(root))
    (experiment,) = [each for each in client.search_experiments() if each.name == "toy"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parent, {str(run.info.run_name): run for run in runs if run is not parent}


def test_a_sweep_is_one_parent_with_a_flat_child_for_each_combination(tmp_path: Path) -> None:
    tracker = SweepTracker(tmp_path, "toy", "digest")
    url = tracker.begin("a sweep", {"distill.temperature": "1, 2"})
    assert tracker.add(record(1))
    assert tracker.add(record(2, "broken"))
    tracker.end("| table |", SCORES)
    parent, children = found(tmp_path)
    assert parent.info.run_id in (url or "")
    assert (parent.info.status, parent.data.tags["mlflow.note.content"]) == ("FINISHED", "| table |")
    assert parent.data.params == {"distill.temperature": "1, 2"}
    assert parent.data.metrics["lora/accuracy"] == 0.9
    good, bad = children["temperature 1"], children["temperature 2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert good.data.metrics == {"lora/accuracy": 0.9, "lora/accuracy_数学": 0.8, "gain_distillation": 0.01}
    assert good.data.params["distill.student.layers"] == "[0, 2]"
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert bad.data.tags["stillhouse.failure"] == "broken"
    assert "stillhouse.lock" not in good.data.tags  # it would pass for a published pipeline run


def test_the_same_sweep_goes_on_in_the_same_runs(tmp_path: Path) -> None:
    first = SweepTracker(tmp_path, "toy", "digest")
    first.begin("a sweep", {})
    first.add(record(1))
    first.add(record(2, "broken"))
    first.end("", {}, "KILLED")
    again = SweepTracker(tmp_path, "toy", "digest")
    again.begin("a better name", {})
    assert found(tmp_path)[0].info.status == "RUNNING"
    for number in (1, 2):
        again.add(record(number))
    again.end("| table |", SCORES)
    parent, children = found(tmp_path)
    assert (parent.info.run_name, parent.info.status) == ("a better name", "FINISHED")
    assert {name: run.info.status for name, run in children.items()} == {
        "temperature 1": "FINISHED",
        "temperature 2": "FINISHED",
    }
    assert "stillhouse.failure" not in children["temperature 2"].data.tags


def test_a_combination_that_ended_well_stays_so(tmp_path: Path) -> None:
    tracker = SweepTracker(tmp_path, "toy", "digest")
    tracker.begin("a sweep", {})
    tracker.add(record(1))
    tracker.add(record(1, "broken"))
    assert found(tmp_path)[1]["temperature 1"].info.status == "FINISHED"


def test_without_a_server_nothing_is_raised_and_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    tracker = SweepTracker(tmp_path, "toy", "digest")
    assert tracker.begin("a sweep", {}) is None
    assert not tracker.add(record(1))
    tracker.end("", {})
