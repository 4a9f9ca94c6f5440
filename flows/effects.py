"""The side effects after the stages: gate report, benchmark, publication, Prefect artifact; each with a receipt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from components.component import COMPONENTS
from components.errors import UserError, disk_full
from components.params.project import Params
from components.validate.report import REPORT
from flows import compare, gate_report
from flows.benchmark import benchmark
from flows.display import Display
from flows.models import contents, evaluated
from flows.receipts import BENCHMARKED, PUBLISHED, REPORTED, outstanding, receipt
from flows.repo.workspace import Workspace
from flows.tracking.record import ModelRecord, PipelineRecord, gain_metrics, model_metrics, phase_params
from flows.tracking.tracker import Tracker

EVALUATED = Path("artifacts/evaluate")


@dataclass(frozen=True)
class Effect:
    """What a finished side effect led to: where its result is, and what to say of it."""

    result: str
    detail: str


def apply_effects(workspace: Workspace, params: Params, tracker: Tracker, display: Display) -> list[str]:
    """Do what is outstanding; return a warning for each side effect that failed and will be tried again.

    One that fails keeps none of the others from being done. An error that nobody foresaw is raised at the end.
    """
    kept, warnings, unforeseen = receipt(workspace, params), [], []
    actions: dict[str, Callable[[], Effect]] = {
        REPORTED: lambda: _restore_gate_report(workspace.root),
        BENCHMARKED: lambda: _benchmark(workspace, params),
        PUBLISHED: lambda: _publish(workspace, params, tracker),
    }
    failed: set[str] = set()
    for name in outstanding(workspace, params):
        display.start(name)
        try:
            effect = run_effect.with_options(name=name, task_run_name=name)(actions[name])
        except Exception as error:
            failed.add(name)
            display.finish(name, "failed")
            readable = error if isinstance(error, UserError) else disk_full(error)
            if readable:
                warnings.append(f"{name}: {readable}")
            else:
                unforeseen.append(error)
        else:
            display.finish(name, "ran", effect.detail)
            if name != PUBLISHED or BENCHMARKED not in failed:  # else publish again when there are speeds
                kept.add(name, effect.result)
    _show_comparison(workspace)
    if unforeseen:
        raise unforeseen[0]
    return warnings


@task(cache_policy=NO_CACHE, persist_result=False)
def run_effect(action: Callable[[], Effect]) -> Effect:
    """One side effect as a Prefect task."""
    effect = action()
    get_run_logger().info(effect.detail)
    return effect


def _show_comparison(workspace: Workspace) -> None:
    """The table as a Prefect artifact of this flow run, whether MLflow can be reached or not."""
    comparison = compare.markdown(compare.comparison(workspace.root))
    create_markdown_artifact(comparison, key="comparison", description="The models side by side")


def _restore_gate_report(root: Path) -> Effect:
    page = gate_report.restore(root)
    return Effect(page, page)


def _benchmark(workspace: Workspace, params: Params) -> Effect:
    hashes = contents(workspace.root)
    measured = {model.name: (model.folder, hashes[model.name]) for model in evaluated(workspace.root)}
    benchmark(workspace.root, measured, params.benchmark, params.runtime, params.data.max_length)
    return Effect(str(compare.BENCHMARK), str(compare.BENCHMARK))


def _publish(workspace: Workspace, params: Params, tracker: Tracker) -> Effect:
    published = tracker.publish(pipeline_record(workspace, params))
    create_link_artifact(published.url, link_text="The run in MLflow", key="mlflow")
    version = f", {published.registered_model} version {published.registered_version}"
    detail = f"MLflow run {published.parent_run_id[:8]}{version if published.registered_version else ''}"
    return Effect(published.parent_run_id, detail)


def run_name(workspace: Workspace) -> str:
    """The pipeline run's name for people: the day, the commit, the inputs."""
    commit = (workspace.git_commit() or "no-git")[:7]
    return f"{date.today().isoformat()} {commit} {workspace.inputs_digest()[:6]}"


def pipeline_record(workspace: Workspace, params: Params) -> PipelineRecord:
    """Everything there is to publish about the results in the workspace."""
    root = workspace.root
    metrics = json.loads((root / EVALUATED / "metrics.json").read_text(encoding="utf-8"))
    benchmarks = (
        json.loads((root / compare.BENCHMARK).read_text(encoding="utf-8"))
        if (root / compare.BENCHMARK).exists()
        else None
    )
    hashes = contents(root)
    versions = {name: component.full_version() for name, component in COMPONENTS.items()}
    records = [
        ModelRecord(
            name=model.name,
            stage=model.stage,
            folder=root / model.folder,
            content=hashes[model.name],
            version=versions[model.stage],
            metrics=model_metrics(metrics, benchmarks, model.name),
            predictions=root / EVALUATED / "predictions" / f"{model.name}.parquet",
            params=flat(_stage_params(params, model.stage)) | phase_params(root / model.phases),
            history=root / model.history,
        )
        for model in evaluated(root)
    ]
    return PipelineRecord(
        name=run_name(workspace),
        inputs_digest=workspace.inputs_digest(),
        lock_digest=workspace.lock_digest(),
        git_commit=workspace.git_commit() or "none",
        data_hash=workspace.data_hash() or "none",
        rows=metrics["rows"],
        max_length=params.data.max_length,
        params=flat(params.model_dump(by_alias=True)),
        versions=versions,
        models=records,
        gains=gain_metrics(metrics),
        texts=root / "artifacts/validate/test",
        comparison=compare.markdown(compare.comparison(root)),
        figures=sorted((root / EVALUATED / "plots").glob("*.svg")),
        files={
            "metrics.json": root / EVALUATED / "metrics.json",
            "benchmark.json": root / compare.BENCHMARK,
            "gate/report.html": root / REPORT / "report.html",
            "dvc.lock": root / "dvc.lock",
            "params.yaml": root / "params.yaml",
        },
        registered_model=params.publish.registered_model,
    )


def _stage_params(params: Params, stage: str) -> dict[str, Any]:
    """The parameters that a stage reads, by their keys in params.yaml."""
    keys = COMPONENTS[stage].parameters.values()
    values = {key: params.get(key) for key in keys}
    return {
        key: value.model_dump(by_alias=True) if hasattr(value, "model_dump") else value for key, value in values.items()
    }


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str | float | int]:
    """Nested mappings as dotted keys; lists, models and None as text."""
    found: dict[str, str | float | int] = {}
    for key, value in values.items():
        value = value.model_dump(by_alias=True) if hasattr(value, "model_dump") else value
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = (
                value if isinstance(value, (int, float, str)) else json.dumps(value, ensure_ascii=False)
            )
    return found
