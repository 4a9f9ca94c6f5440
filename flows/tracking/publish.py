"""Publishing a pipeline run: creates what MLflow lacks and nothing twice, so it can be repeated at any time."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UserError
from components.ml.tasks.table import TASKS
from flows.tracking import curves, models, registry, runs, views
from flows.tracking.headline import capital, leading, share
from flows.tracking.record import ModelRecord, PipelineRecord, figures, ordered

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILES, _ATTACHED = "stillhouse.files", "stillhouse.attached"
_DATASET = "data"
_LONGEST_DIGEST = 36  # MLflow's limit; an MD5 of DVC with ".dir" is just that long
_ON_PARENT = ("agreement_with_teacher", "megabytes", "latency_p50_ms", "throughput_per_s")
"""Beside the task's leading metrics."""


@dataclass(frozen=True)
class Published:
    """What a publication led to; ``created`` is False when an earlier one of the same lock digest was completed.

    ``url`` is the page of the parent run, ``table`` the runs table with all models side by side, ``compared`` the page
    that compares those of this run.
    """

    parent_run_id: str
    experiment_id: str
    url: str
    created: bool
    runs: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    registered_model: str | None = None
    registered_version: str | None = None
    table: str = ""
    compared: str = ""


def publish(client: MlflowClient, experiment: str, record: PipelineRecord, web: str) -> Published:
    """Write the record to MLflow; see :class:`Published`."""
    parent, created = runs.published_parent(client, experiment, record.inputs_digest, record.lock_digest, record.name)
    parent_id = parent.info.run_id
    views.ensure(client, experiment, TASKS[record.task])
    _describe_parent(client, parent_id, record)
    shown = ordered(record.models)
    try:
        children = {model.name: _publish_model(client, experiment, parent_id, record, model) for model in shown}
    except UserError as error:
        runs.fail(client, experiment, parent_id, "FAILED", str(error))
        raise
    _add_files(client, parent_id, record.artifacts, {"comparison.md": record.comparison})
    version = _register(client, record, children, parent_id, experiment)
    of_models = [run_id for run_id, _ in children.values()]
    for place, run_id in enumerate(of_models):
        runs.describe(client, run_id, {runs.ORDER: f"{parent.info.start_time:015d} {len(shown) - place:03d}"})
    runs.describe(client, parent_id, {runs.NOTE: _note(record, experiment, of_models)})
    runs.finish(client, parent_id)
    return Published(
        parent_run_id=parent_id,
        experiment_id=experiment,
        url=f"{web}/#/experiments/{experiment}/runs/{parent_id}",
        created=created,
        runs={name: run_id for name, (run_id, _) in children.items()},
        models={name: model_id for name, (_, model_id) in children.items()},
        registered_model=record.registered_model if version else None,
        registered_version=version,
        table=views.table(web, experiment),
        compared=views.comparison(web, experiment, of_models),
    )


def attach(client: MlflowClient, run_id: str, files: Mapping[str, Path]) -> None:
    """Put more files among a run's artifacts than its publication did, unless just these are there."""
    _add_files(client, run_id, files, tag=_ATTACHED)


def _note(record: PipelineRecord, experiment: str, of_models: list[str]) -> str:
    """The parent's description: a line for the runs table, the comparison, and where to look further."""
    headline = TASKS[record.task].headline
    told = [f"{model.shown} {share(headline, model.metrics[headline.key])}" for model in ordered(record.models)]
    links = (
        f"[The models in the runs table]({views.table('', experiment).lstrip('/')}), "
        f"[on the page that compares them]({views.comparison('', experiment, of_models).lstrip('/')})."
    )
    return "\n\n".join([f"{capital(headline.name)}: {'; '.join(told)}.", record.comparison, links])


def _describe_parent(client: MlflowClient, run_id: str, record: PipelineRecord) -> None:
    """What the pipeline run was; its lock digest first, so that a publication cut short is found again."""
    keys = [*(metric.key for metric in leading(TASKS[record.task])), *_ON_PARENT]
    metrics = {
        f"{model.name}/{key}": model.metrics[key] for model in record.models for key in keys if key in model.metrics
    } | dict(record.gains)
    versions = {f"stillhouse.version.{stage}": version for stage, version in record.versions.items()}
    tags = {runs.LOCK: record.lock_digest} | versions | _origin(record)
    runs.log_once(client, run_id, metrics, {**record.params, **_origin_params(record)}, tags)
    _add_dataset(client, run_id, record)


def _publish_model(
    client: MlflowClient, experiment: str, parent: str, record: PipelineRecord, model: ModelRecord
) -> tuple[str, str]:
    """The ids of the model's child run and of its logged model."""
    run = runs.child(client, experiment, parent, model.name, model.content)
    run_id = run.info.run_id
    runs.rename(client, run, model.shown)
    tags = {
        runs.CONTENT: model.content,
        "stillhouse.stage": model.stage,
        "stillhouse.version": model.version,
    }
    params = {**model.params, "component_version": model.version, **_origin_params(record)}
    runs.log_once(client, run_id, params=params, tags=tags | _origin(record))
    scores = figures(model.metrics, TASKS[record.task])
    told = f"{model.shown}: {scores}; made by {model.stage} {model.version} in {record.name}."
    runs.describe(client, run_id, {runs.NOTE: told[0].upper() + told[1:]})
    _add_dataset(client, run_id, record)
    model_id = models.ensure(client, experiment, run_id, model, record.texts, record.max_length, record.windows)
    runs.log_once(
        client,
        run_id,
        model.metrics,
        model_id=model_id,
        dataset_name=_DATASET,
        dataset_digest=record.data_hash[:_LONGEST_DIGEST],
    )
    if model.history and model.history.exists():
        curves.add(client, run_id, curves.read(model.history), curves.logged(client, run_id))
        _add_files(client, run_id, {"history.jsonl": model.history})
    runs.finish(client, run_id)
    return run_id, model_id


def _register(
    client: MlflowClient,
    record: PipelineRecord,
    children: Mapping[str, tuple[str, str]],
    parent: str,
    experiment: str,
) -> str | None:
    """Register the candidate; None when this pipeline has none."""
    named = {model.name: model for model in record.models}
    model = next((named[name] for name in record.candidates if name in named), None)
    if model is None:
        return None
    run_id, model_id = children[model.name]
    return registry.register(client, record, model, registry.Origin(run_id, model_id, parent, experiment))


def _origin(record: PipelineRecord) -> dict[str, str]:
    return {"mlflow.source.git.commit": record.git_commit, "stillhouse.data": record.data_hash}


def _origin_params(record: PipelineRecord) -> dict[str, str]:
    """Again as parameters: MLflow's compare view shows those."""
    return {"git_commit": record.git_commit, "data_hash": record.data_hash}


def _add_dataset(client: MlflowClient, run_id: str, record: PipelineRecord) -> None:
    """Name the data as an input of the run, by hash; no row is read. MLflow itself keeps one of each hash."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=_DATASET,
        digest=record.data_hash[:_LONGEST_DIGEST],
        source_type="local",
        source=json.dumps({"uri": "data"}),
        profile=json.dumps({"test_rows": record.rows, "dvc_hash": record.data_hash}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training and evaluation")])])


def _add_files(
    client: MlflowClient,
    run_id: str,
    files: Mapping[str, Path],
    texts: Mapping[str, str] | None = None,
    tag: str = _FILES,
) -> None:
    """Put files under their names among the run's artifacts, unless just these are there.

    The tag, with their hash, is written last: it vouches for a complete upload.
    """
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as name:
        staged = Path(name)
        for place, text in (texts or {}).items():
            (staged / place).write_text(text, encoding="utf-8")
        for place, path in files.items():
            _stage(path, staged / place)
        digest = _digest(staged)
        if client.get_run(run_id).data.tags.get(tag) != digest:
            client.log_artifacts(run_id, name)
            client.set_tag(run_id, tag, digest)


def _stage(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
