"""Publishing: everything is there once, however often and with whatever interruptions it is repeated."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow import MlflowClient

from components.errors import UserError
from flows.tracking import models, registry, runs, store, views
from flows.tracking import publish as publication
from flows.tracking.record import PipelineRecord
from flows.tracking.tracker import Tracker

Trackers = Callable[[], Tracker]
View = tuple[Any, dict[str | None, Any], Any]  # the parent run, the children by name, the client
NAMES = {"teacher", "student", "student_without_distillation", "lora"}


def contents(root: Path) -> Any:
    """Everything that a publication could add twice."""
    client = MlflowClient(store.tracking_uri(root))
    experiment = runs.experiment_id(client, "demo")
    found = client.search_runs([experiment])
    return {
        "runs": sorted((run.info.run_id, run.info.status, run.info.end_time) for run in found),
        "tags": {run.info.run_id: dict(run.data.tags) for run in found},
        "params": {run.info.run_id: dict(run.data.params) for run in found},
        "points": {
            (run.info.run_id, name): sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
            for run in found
            for name in run.data.metrics
        },
        "inputs": {run.info.run_id: len(run.inputs.dataset_inputs if run.inputs else []) for run in found},
        "outputs": {
            run.info.run_id: [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
            for run in found
        },
        "models": sorted((m.model_id, str(m.status)) for m in client.search_logged_models([experiment])),
        "versions": sorted(str(v.version) for v in client.search_model_versions("name = 'stillhouse'")),
        "files": sorted(str(path) for path in root.rglob("*") if path.is_file() and path.suffix != ".db"),
    }


@pytest.fixture
def view(published_root: Path) -> View:
    """Parent run, child runs by name, and the client, of the published run."""
    client = MlflowClient(store.tracking_uri(published_root))
    found = client.search_runs([runs.experiment_id(client, "demo")])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return parent, {run.data.tags[runs.MODEL]: run for run in found if run is not parent}, client


def test_one_parent_with_one_flat_child_for_each_model(view: View, finished_run: PipelineRecord) -> None:
    parent, children, _ = view
    assert set(children) == NAMES
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *children.values()]} == {"FINISHED"}
    assert parent.info.run_name == finished_run.name
    assert finished_run.comparison in parent.data.tags["mlflow.note.content"]


def test_runs_are_named_and_described_for_people_in_the_order_in_which_models_are_made(
    view: View, finished_run: PipelineRecord
) -> None:
    parent, children, _ = view
    ordered = sorted(children.values(), key=lambda run: run.data.tags[runs.ORDER], reverse=True)
    names = ["teacher", "student without distillation", "student", "LoRA student"]
    assert [run.info.run_name for run in ordered] == names
    assert ordered[0].data.tags[runs.NOTE] == (
        "Teacher: 90.0% accuracy, 90.0% macro F1, 0.1 MB, 2.0 ms a text; made by teacher 1.0.0+abc1234 in "
        f"{finished_run.name}."
    )
    first, *_, links = parent.data.tags[runs.NOTE].split("\n\n")
    assert first.startswith("Accuracy: teacher 90.0%; student without distillation 88.0%; student 89.0%;")
    assert all(run.info.run_id in links for run in ordered)


def test_what_people_changed_of_the_view_stays(make_tracker: Trackers, one_model: PipelineRecord) -> None:
    tracker = make_tracker()
    tracker.publish(one_model)
    client, key = tracker.client, f"mlflow.sharedViewState.{views.VIEW}"
    client.set_experiment_tag(tracker.experiment_id, key, "theirs")
    tracker.publish(one_model)
    assert client.get_experiment(tracker.experiment_id).tags[key] == "theirs"


def test_the_parent_tells_what_was_gained_over_how_many_seeds(view: View) -> None:
    parent, _, _ = view
    found = {name: value for name, value in parent.data.metrics.items() if "gain" in name or name == "seeds"}
    assert found == {
        **{"gain_distillation": 0.02, "gain_distillation_low": 0.01, "gain_distillation_high": 0.04},
        **{"gain_distillation_target": 0.03, "gain_distillation_target_low": -0.01},
        **{"gain_distillation_target_high": 0.07, "seeds": 2},
    }


def test_children_have_the_metrics_of_the_record_under_the_same_names(view: View, finished_run: PipelineRecord) -> None:
    _, children, _ = view
    assert len({frozenset(run.data.metrics) for run in children.values()}) == 1
    for model in finished_run.models:
        assert dict(model.metrics).items() <= children[model.name].data.metrics.items()


def test_each_run_tells_where_it_comes_from(view: View, finished_run: PipelineRecord) -> None:
    parent, children, _ = view
    for run in [parent, *children.values()]:
        assert run.data.tags["mlflow.source.git.commit"] == run.data.params["git_commit"] == finished_run.git_commit
        assert run.data.tags["stillhouse.data"] == run.data.params["data_hash"] == finished_run.data_hash
        (dataset,) = run.inputs.dataset_inputs
        assert dataset.dataset.digest == finished_run.data_hash
        assert run.data.tags["mlflow.note.content"]
    assert children["lora"].data.params["component_version"] == "1.0.0+abc1234"
    assert parent.data.params["teacher.phases.general.lr"] == "5e-05"
    assert parent.data.params["teacher.phases.my phase_21_.lr"] == "1"


def test_metrics_are_tied_to_the_model_and_the_data(view: View, finished_run: PipelineRecord) -> None:
    _, children, client = view
    run = children["lora"]
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    tied = {metric.key: metric for metric in model.metrics}
    assert tied["accuracy"].value == finished_run.models[-1].metrics["accuracy"]
    assert tied["accuracy"].dataset_digest == finished_run.data_hash
    assert not any(key.startswith("train/") for key in tied)


def test_files_are_where_people_look(view: View) -> None:
    parent, children, client = view
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert names == {"comparison.md", "metrics.json", "figures"}
    assert [item.path for item in client.list_artifacts(parent.info.run_id, "figures")] == ["figures/accuracy.svg"]
    assert [item.path for item in client.list_artifacts(children["lora"].info.run_id)] == ["history.jsonl"]


def test_files_that_come_later_are_kept_once_beside_those_of_the_publication(
    make_tracker: Trackers, one_model: PipelineRecord, tmp_path: Path
) -> None:
    tracker, page = make_tracker(), tmp_path / "made.html"
    run = tracker.publish(one_model).parent_run_id
    client = MlflowClient(store.tracking_uri(tracker.root))
    before = dict(client.get_run(run).data.tags)
    for text in ("<p>好</p>", "<p>好</p>", "<p>更好</p>"):
        page.write_text(text, encoding="utf-8")
        tracker.attach(run, {"report.html": page})
        kept = Path(client.download_artifacts(run, "report.html", str(tmp_path)))
        assert kept.read_text(encoding="utf-8") == text
    assert {"comparison.md", "report.html"} <= {item.path for item in client.list_artifacts(run)}
    assert before.items() <= client.get_run(run).data.tags.items()  # so that publishing again uploads nothing


def test_more_parameters_than_mlflow_takes_at_once_are_all_there(
    make_tracker: Trackers, one_model: PipelineRecord
) -> None:
    many: dict[str, str | float | int] = {f"teacher.phases.第{index}.lr": index for index in range(250)}
    model = dataclasses.replace(one_model.models[0], params=many)
    metrics = {f"gain_{index}": float(index) for index in range(1100)}
    tracker = make_tracker()
    published = tracker.publish(dataclasses.replace(one_model, params=many, gains=metrics, models=[model]))
    client = MlflowClient(store.tracking_uri(tracker.root))
    parent = client.get_run(published.parent_run_id).data
    for found in (parent.params, client.get_run(published.runs["lora"]).data.params):
        assert {key: str(value) for key, value in many.items()}.items() <= found.items()
    assert metrics.items() <= parent.metrics.items()


def test_no_pickle_is_stored(published_root: Path) -> None:
    names = Counter(path.suffix for path in published_root.rglob("*") if path.is_file())
    assert names[".safetensors"] == 4
    assert not {".pkl", ".pickle", ".bin", ".pt", ".pth"} & set(names)


def test_publishing_twice_adds_nothing(published_root: Path, finished_run: PipelineRecord) -> None:
    before = contents(published_root)
    again = Tracker(published_root, "demo").publish(finished_run)
    assert not again.created
    assert contents(published_root) == before


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [
        (publication, "_add_dataset", 2),
        (models, "check", 1),
        (publication, "_add_files", 1),
        (registry, "_create", 1),
        (runs, "finish", 2),
    ],
)
def test_a_publication_cut_short_is_completed(
    make_tracker: Trackers,
    one_model: PipelineRecord,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    calls: int,
) -> None:
    original, count = getattr(module, name), 0

    def fail_at_the_last(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count == calls:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            make_tracker().publish(one_model)
    published = make_tracker().publish(one_model)
    found = contents(make_tracker().root)
    assert len(found["runs"]) == 2
    assert {status for _, status, _ in found["runs"]} == {"FINISHED"}
    assert found["models"] == [(published.models["lora"], "READY")]
    assert found["versions"] == ["1"]
    assert found["outputs"][published.runs["lora"]] == [published.models["lora"]]
    assert [step for step, _ in found["points"][published.runs["lora"], "train/loss"]] == list(range(1, 21))


def test_a_streamed_curve_is_completed_and_no_step_is_there_twice(
    make_tracker: Trackers, one_model: PipelineRecord
) -> None:
    from flows.tracking import curves

    tracker = make_tracker()
    parent: Any = tracker.begin(one_model.inputs_digest, one_model.name)
    stream = tracker.follow(parent, "lora")
    stream.push(curves.read(one_model.models[0].folder.parent / "history.jsonl")[:7])
    stream.close()
    published = tracker.publish(one_model)
    assert (published.parent_run_id, published.runs["lora"]) == (parent.run_id, stream.run_id)
    points = contents(tracker.root)["points"]
    assert [step for step, _ in points[stream.run_id, "train/loss"]] == list(range(1, 21))
    assert [step for step, _ in points[stream.run_id, "validation/accuracy"]] == [10, 20]


def test_a_result_that_is_there_already_keeps_its_run(make_tracker: Trackers, one_model: PipelineRecord) -> None:
    tracker = make_tracker()
    first = tracker.publish(one_model)
    before = contents(tracker.root)
    parent: Any = tracker.begin("other inputs, same result", "a second attempt")
    tracker.follow(parent, "lora").push([{"step": 1, "loss": 0.5}])
    again = tracker.publish(dataclasses.replace(one_model, inputs_digest="other inputs, same result"))
    assert again.parent_run_id == first.parent_run_id
    assert contents(tracker.root) == before
    third: Any = tracker.begin(one_model.inputs_digest, "a third")
    assert third.run_id == first.parent_run_id
    tracker.fail(third, "nothing fails after the fact")
    assert contents(tracker.root) == before


def test_a_model_that_was_logged_is_used_again_by_the_next_run(
    make_tracker: Trackers, one_model: PipelineRecord
) -> None:
    tracker = make_tracker()
    first = tracker.publish(one_model)
    second = tracker.publish(dataclasses.replace(one_model, inputs_digest="inputs-2", lock_digest="lock-2"))
    assert second.parent_run_id != first.parent_run_id
    assert second.models == first.models
    assert second.registered_version == first.registered_version == "1"
    found = contents(tracker.root)
    assert len(found["models"]) == 1
    assert found["outputs"][second.runs["lora"]] == [first.models["lora"]]


def test_a_new_benchmark_is_added_to_the_same_run(make_tracker: Trackers, one_model: PipelineRecord) -> None:
    tracker = make_tracker()
    first = tracker.publish(one_model)
    model = one_model.models[0]
    faster = dataclasses.replace(model, metrics={**model.metrics, "latency_p50_ms": 1.0})
    tracker.publish(dataclasses.replace(one_model, models=[faster]))
    points = contents(tracker.root)["points"]
    assert [value for _, value in points[first.runs["lora"], "latency_p50_ms"]] == [1.0, 2.0]
    assert len(points[first.runs["lora"], "accuracy"]) == 1


def test_a_model_that_loads_back_differently_is_refused(
    make_tracker: Trackers, one_model: PipelineRecord, finished_run: PipelineRecord
) -> None:
    wrong = dataclasses.replace(one_model.models[0], predictions=finished_run.models[0].predictions)
    tracker = make_tracker()
    with pytest.raises(UserError, match="other logits") as caught:
        tracker.publish(dataclasses.replace(one_model, models=[wrong]))
    assert caught.value.kind == "model"
    assert {status for _, status, _ in contents(tracker.root)["runs"]} == {"FAILED"}
    found = contents(tracker.root)
    assert found["models"] == []
    assert found["versions"] == []
