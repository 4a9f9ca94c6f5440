"""Models come back from MLflow offline with the same logits, and are registered once for each content."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.errors import UserError
from components.ml.models.scoring import load_classifier, predict_logits
from flows.tracking import models, store
from flows.tracking.record import PipelineRecord
from flows.tracking.tracker import Tracker

Trackers = Callable[[], Tracker]
TEXTS = ["这部电影不好", "a good film", "bad"]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Sets MLflow's process-wide address for one test."""
    from mlflow.tracking._tracking_service import utils

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setattr(utils, "_tracking_uri", None)
    return lambda root: mlflow.set_tracking_uri(f"sqlite:///{root}/.stillhouse/mlflow/mlflow.db")


@pytest.fixture
def candidate(published_root: Path, address: Callable[[Path], None]) -> Any:
    address(published_root)
    return mlflow.pyfunc.load_model("models:/stillhouse@candidate")


def test_the_candidate_gives_the_logits_of_the_lora_student(candidate: Any, finished_run: PipelineRecord) -> None:
    expected = predict_logits(*load_classifier(finished_run.models[-1].folder), TEXTS, max_length=12)
    found = candidate.predict(TEXTS, params={"return": "logits"})
    assert list(found.columns) == ["negative", "正面"]
    assert np.allclose(found.to_numpy(), expected, atol=1e-5)


def test_a_model_that_cuts_texts_elsewhere_is_another_model(published_root: Path, finished_run: PipelineRecord) -> None:
    client = MlflowClient(store.tracking_uri(published_root))
    experiment = client.get_experiment_by_name("demo")
    assert experiment
    content = finished_run.models[0].content
    assert models._find(client, experiment.experiment_id, content, finished_run.max_length)
    assert models._find(client, experiment.experiment_id, content, finished_run.max_length + 1) is None


def test_lists_arrays_and_tables_are_read_alike(candidate: Any) -> None:
    expected = candidate.predict(TEXTS)
    table = pd.DataFrame({"document": ["x", "y", "z"], "text": TEXTS})
    for form in (np.array(TEXTS), pd.Series(TEXTS), table, {"text": TEXTS}, table[["text"]]):
        pd.testing.assert_frame_equal(candidate.predict(form), expected)
    with pytest.raises(MlflowException, match="column 'text'"):
        candidate.predict(pd.DataFrame({"a": TEXTS, "b": TEXTS}))


def test_probabilities_of_all_classes_and_labels_agree(candidate: Any) -> None:
    probabilities = candidate.predict(TEXTS, params={"return": "probabilities"})
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    labels = candidate.predict(TEXTS)
    assert list(labels["label"]) == list(probabilities.idxmax(axis=1))
    assert np.allclose(labels["score"], probabilities.max(axis=1))
    assert len(candidate.predict([])) == 0
    with pytest.raises(MlflowException, match="label, probabilities, logits"):
        candidate.predict(TEXTS, params={"return": "colours"})


def test_texts_are_cut_where_evaluation_cut_them(candidate: Any) -> None:
    long = ["good " * 10 + "bad " * 30, "good " * 10 + "film " * 30]
    found = candidate.predict(long, params={"return": "logits"}).to_numpy()
    assert np.allclose(found[0], found[1])


def test_the_version_tells_where_it_comes_from(published_root: Path, finished_run: PipelineRecord) -> None:
    client = MlflowClient(store.tracking_uri(published_root))
    version: Any = client.get_model_version_by_alias("stillhouse", "candidate")
    assert version.tags["stillhouse.content"] == finished_run.models[-1].content
    assert version.tags["stillhouse.data"] == finished_run.data_hash
    assert version.tags["mlflow.source.git.commit"] == finished_run.git_commit
    assert client.get_run(version.tags["stillhouse.parent_run"]).info.run_name == finished_run.name
    assert client.get_run(version.run_id).info.run_name == "LoRA student"
    assert "accuracy" in version.description


def test_registering_leaves_the_process_wide_address_alone(make_tracker: Trackers, one_model: PipelineRecord) -> None:
    make_tracker().publish(one_model)
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_changed_content_is_a_new_version_and_takes_the_alias(
    make_tracker: Trackers, one_model: PipelineRecord, finished_run: PipelineRecord
) -> None:
    tracker = make_tracker()
    tracker.publish(one_model)
    other = dataclasses.replace(finished_run.models[0], name="lora")
    second = dataclasses.replace(one_model, inputs_digest="inputs-2", lock_digest="lock-2", models=[other])
    assert tracker.publish(second).registered_version == "2"
    client = MlflowClient(store.tracking_uri(tracker.root))
    assert str(client.get_model_version_by_alias("stillhouse", "candidate").version) == "2"
    assert len(client.search_model_versions("name = 'stillhouse'")) == 2
    assert tracker.publish(one_model).registered_version == "1"  # an earlier state of the project, checked out again
    assert str(client.get_model_version_by_alias("stillhouse", "candidate").version) == "1"


def with_prompts(record: PipelineRecord, folder: Path) -> PipelineRecord:
    """The record's only model with a prompt before its texts."""
    import torch

    from components.ml.adapters.peft_models import add_adapters
    from components.ml.adapters.saving import save_trained
    from components.ml.models.scoring import load_plain
    from components.params.trainable import PrefixTuning, PromptSettings

    (model,) = record.models
    plain, tokenizer = load_plain(model.folder)
    torch.manual_seed(0)
    adapted = add_adapters(plain, PrefixTuning(prefix_tuning=PromptSettings(tokens=4)), "artifacts/finetune/model")
    save_trained(adapted.eval(), tokenizer, folder)
    texts = pq.read_table(record.texts)
    logits = predict_logits(adapted, tokenizer, texts["text"].to_pylist(), max_length=record.max_length)
    values = pa.array(list(logits), pa.list_(pa.float32(), logits.shape[1]))
    pq.write_table(pa.table({"row": texts["row"], "logits": values}), folder / "predictions.parquet")
    changed = {"folder": folder / "model", "content": "prompts.dir", "predictions": folder / "predictions.parquet"}
    return dataclasses.replace(record, models=[dataclasses.replace(model, **changed)])


def test_a_model_that_needs_prompts_gives_its_own_logits(
    make_tracker: Trackers, one_model: PipelineRecord, tmp_path: Path, address: Callable[[Path], None]
) -> None:
    record = with_prompts(one_model, tmp_path / "tuned")
    tracker = make_tracker()
    tracker.publish(record)
    address(tracker.root)
    found = mlflow.pyfunc.load_model("models:/stillhouse@candidate").predict(TEXTS, params={"return": "logits"})
    expected = predict_logits(*load_classifier(record.models[0].folder), TEXTS, max_length=12)
    plain = predict_logits(*load_classifier(one_model.models[0].folder), TEXTS, max_length=12)
    assert np.allclose(found.to_numpy(), expected, atol=1e-5)
    assert not np.allclose(expected, plain, atol=1e-3)
    requirements = next(tracker.root.rglob("requirements.txt")).read_text(encoding="utf-8")
    assert "peft==" in requirements


def test_requirements_are_pinned(published_root: Path) -> None:
    for path in published_root.rglob("requirements.txt"):
        lines = path.read_text(encoding="utf-8").split()
        assert {line.split("==")[0] for line in lines} >= {"mlflow", "torch", "transformers"}
        assert not any(line.startswith("peft") for line in lines)  # only a model with an adapter/ needs it
        assert all("==" in line and "+" not in line for line in lines)


WHERE = {"stillhouse.dvc.hash": "0123.dir", "stillhouse.dvc.path": "artifacts/teacher/model"}


def large_teacher(record: PipelineRecord, reference: dict[str, str] | None) -> PipelineRecord:
    """The record of a teacher and the model that is registered; the teacher is logged by reference."""
    teacher = dataclasses.replace(record.models[0], reference=reference)
    return dataclasses.replace(record, models=[teacher, record.models[-1]])


def test_a_large_model_is_logged_with_where_it_is_and_without_its_files(
    make_tracker: Trackers, finished_run: PipelineRecord
) -> None:
    tracker = make_tracker()
    first = tracker.publish(large_teacher(finished_run, WHERE))
    assert tracker.publish(large_teacher(finished_run, WHERE)).models == first.models
    client = MlflowClient(store.tracking_uri(tracker.root))
    logged = client.get_logged_model(first.models["teacher"])
    assert logged.status == "READY"
    assert WHERE.items() <= logged.tags.items()
    assert logged.params == WHERE
    assert "accuracy" in {metric.key for metric in logged.metrics}
    copied = client.get_logged_model(first.models["lora"])
    assert [files(model) for model in (logged, copied)] == [[], ["model.safetensors"]]


def files(model: Any) -> list[str]:
    folder = Path(model.artifact_location.removeprefix("file://"))
    return [path.name for path in folder.rglob("*.safetensors")]


def test_with_a_higher_limit_it_is_copied_and_stays_so_with_a_lower_one(
    make_tracker: Trackers, finished_run: PipelineRecord
) -> None:
    tracker = make_tracker()
    referred = tracker.publish(large_teacher(finished_run, WHERE)).models["teacher"]
    copied = tracker.publish(large_teacher(finished_run, None)).models["teacher"]
    assert copied != referred
    assert tracker.publish(large_teacher(finished_run, WHERE)).models["teacher"] == copied
    assert files(MlflowClient(store.tracking_uri(tracker.root)).get_logged_model(copied))


def test_a_model_logged_by_reference_must_give_the_logits_of_its_evaluation(
    make_tracker: Trackers, finished_run: PipelineRecord
) -> None:
    record = large_teacher(finished_run, WHERE)
    wrong = dataclasses.replace(record.models[0], predictions=record.models[1].predictions)
    with pytest.raises(UserError, match=r"'teacher' in .* comes with other logits"):
        make_tracker().publish(dataclasses.replace(record, models=[wrong, record.models[1]]))
