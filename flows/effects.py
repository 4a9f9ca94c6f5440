"""The side effects after the stages: gate report, benchmark, publication, promotion, revision, report; receipted."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from components.component import COMPONENTS
from components.errors import UserError, disk_full
from components.ml.models.folders import brings_code
from components.params.project import Params
from components.validate.report import REPORT
from flows import artifacts, compare, gate_report, notifications
from flows.benchmark import benchmark
from flows.gating import gate, report
from flows.models import contents, evaluated, megabytes, reference
from flows.receipts import (
    BENCHMARKED,
    GATED,
    PUBLISHED,
    PUSHED,
    RECORDED,
    REPORTED,
    WRITTEN,
    Receipt,
    outstanding,
    pushed,
    receipt,
)
from flows.repo import accepting, remotes, revisions
from flows.repo.workspace import Workspace
from flows.reporting import files
from flows.runs import retries
from flows.runs.display import Display
from flows.runs.options import RunOptions
from flows.runs.stopping import Stopped
from flows.tracking.champions import CHAMPION, Champions, Version
from flows.tracking.headline import task_of
from flows.tracking.record import (
    CANDIDATES,
    FLOAT_TOLERANCE,
    INT8_TOLERANCE,
    ModelRecord,
    PipelineRecord,
    gain_metrics,
    model_metrics,
    phase_params,
)
from flows.tracking.tracker import Tracker

EVALUATED = Path("artifacts/evaluate")


@dataclass(frozen=True)
class Effect:
    """What a finished side effect led to: where its result is, and what to say of it."""

    result: str
    detail: str


def apply_effects(
    workspace: Workspace,
    params: Params,
    tracker: Tracker,
    display: Display,
    options: RunOptions | None = None,
    shared: Collection[str] = (),
    outcomes: Mapping[str, str] | None = None,
) -> list[str]:
    """Do what is outstanding; return a warning for each side effect that failed and will be tried again.

    One that fails keeps none of the others from being done. An error that nobody foresaw is raised at the end.
    The stages in ``shared`` are on the DVC remote already; ``outcomes`` says how this run came by each stage's result.
    """
    options = options or RunOptions()
    kept, warnings, unforeseen = receipt(workspace, params, options.registers), [], []
    champions = Champions(tracker, params.publish.registered_model)
    before = functools.cache(lambda: champions.on(CHAMPION))  # an attempt may move the alias and fail afterwards
    actions: dict[str, Callable[[], Effect]] = {
        REPORTED: lambda: _restore_gate_report(workspace.root),
        BENCHMARKED: lambda: _benchmark(workspace, params),
        PUBLISHED: lambda: _publish(workspace, params, tracker, options),
        GATED: lambda: _gate(workspace, params, champions, kept, before, display),
        RECORDED: lambda: _record(workspace, tracker, kept),
        WRITTEN: lambda: _write_report(workspace, params, tracker, {} if PUBLISHED in failed else kept.done, outcomes),
        PUSHED: lambda: _push(workspace, shared),
    }
    failed: set[str] = set()
    for name in outstanding(workspace, params, options.registers, options.push):
        if name in (GATED, RECORDED) and (failed & {BENCHMARKED, PUBLISHED} or PUBLISHED not in kept.done):
            continue  # the next run publishes, and decides and records it then
        display.start(name)
        try:
            effect = run_effect.with_options(name=name, task_run_name=name, **retries.settings())(actions[name])
        except Stopped as stopped:
            stopped.during = [name]
            display.finish(name, "stopped")
            raise
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
            if _whole(name, failed):
                (pushed(workspace) if name == PUSHED else kept).add(name, effect.result)
    artifacts.comparison(compare.markdown(compare.comparison(workspace.root)))
    if unforeseen:
        raise unforeseen[0]
    return warnings


def _whole(name: str, failed: Collection[str]) -> bool:
    """Whether nothing lacks that has failed before: without speeds results are published again when there are some,
    and a report that couldn't tell everything is written again."""
    return BENCHMARKED not in failed if name == PUBLISHED else name != WRITTEN or not failed


@task(cache_policy=NO_CACHE, persist_result=False)
def run_effect(action: Callable[[], Effect]) -> Effect:
    """One side effect as a Prefect task."""
    retries.pause()
    effect = action()
    get_run_logger().info(effect.detail)
    return effect


def _restore_gate_report(root: Path) -> Effect:
    page = gate_report.restore(root)
    return Effect(page, page)


def _benchmark(workspace: Workspace, params: Params) -> Effect:
    hashes = contents(workspace.root)
    measured = {model.name: (model.folder, hashes[model.name]) for model in evaluated(workspace.root)}
    benchmark(workspace.root, measured, params.benchmark, params.runtime, params.data.max_length, params.data.windows)
    return Effect(str(compare.BENCHMARK), str(compare.BENCHMARK))


def _publish(workspace: Workspace, params: Params, tracker: Tracker, options: RunOptions) -> Effect:
    published = tracker.publish(pipeline_record(workspace, params, options.registers))
    tracker.describe(published.parent_run_id, {**override_tags(options), **_accepted_tags(workspace)})
    artifacts.mlflow_run(published.url)
    version, name = published.registered_version, published.registered_model
    artifacts.mlflow_models(published.table, published.compared)
    detail = f"MLflow run {published.parent_run_id[:8]}{f', {name} version {version}' if version else ''}"
    detail += f" · side by side: {published.table}"
    return Effect(published.parent_run_id, detail)


def _gate(
    workspace: Workspace,
    params: Params,
    champions: Champions,
    kept: Receipt,
    before: Callable[[], Version | None],
    display: Display,
) -> Effect:
    """Decide whether the candidate becomes the champion; a no is no failure. People are told of a new champion."""
    champion, run = before(), kept.done[PUBLISHED]
    say = functools.partial(display.progress, GATED, note="scoring the champion on today's test rows")
    decision = gate.judge(workspace, params, champions, run, say)
    artifacts.decision(report.markdown(decision))
    for reason in decision["reasons"]:
        get_run_logger().info(reason)
    new = champion is None or champion.number != decision["challenger"]["version"]
    if decision["promoted"] and (new or GATED not in kept.done):  # moved by a run that was killed before it told
        old = decision["champion"]["version"] if decision["champion"] else None
        notifications.promotion(workspace.root, champions.name, old, decision, champions.tracker.url(run))
    return Effect(str(report.DECISION), report.headline(decision))


def _record(workspace: Workspace, tracker: Tracker, kept: Receipt) -> Effect:
    """Store the revision that made these results, and name it in their MLflow run."""
    run = kept.done[PUBLISHED]
    revision = revisions.record(workspace, run, f"stillhouse run {run_name(workspace)}")
    if revision is None:
        return Effect("", "the project isn't in git")
    tracker.describe(run, {"stillhouse.commit": revision.commit, "stillhouse.ref": revision.ref})
    return Effect(revision.commit, f"{revision.ref} is {revision.commit[:10]}")


def _write_report(
    workspace: Workspace, params: Params, tracker: Tracker, done: Mapping[str, str], outcomes: Mapping[str, str] | None
) -> Effect:
    """Tell people of the run, on a page and on the model's card; MLflow keeps both where the run is published."""
    from flows.reporting.evidence import Origin
    from flows.reporting.report import write

    run = done.get(PUBLISHED)
    url = tracker.url(run) if run else None
    written = write(workspace, params, run_name(workspace), Origin(run, url, done.get(RECORDED) or None), outcomes)
    if run:
        tracker.attach(run, written)
    place = workspace.root / files.PAGE
    artifacts.run_report(f"{url}/artifacts/{files.PAGE.name}" if url else place.as_uri())
    return Effect(files.fingerprint(workspace.root, params) or "", f"{files.PAGE}, {files.CARD}")


def _push(workspace: Workspace, shared: Collection[str]) -> Effect:
    """Give the DVC remote the data and every result that dvc.lock names: another machine then lacks nothing."""
    lacking = [name for name in workspace.stages() if name not in shared]
    new = remotes.push_data(workspace) + sum(remotes.push_stage(workspace, name) for name in lacking)
    return Effect(str(new), f"{new} files were new there")


def override_tags(options: RunOptions) -> dict[str, str]:
    """What says in MLflow which parameters were set for this run alone."""
    if not options.overrides:
        return {}
    return {"stillhouse.overrides": ", ".join(f"{key}={value}" for key, value in options.overrides.items())}


def _accepted_tags(workspace: Workspace) -> dict[str, str]:
    """What says in MLflow which results were kept across edits of the code."""
    return {f"stillhouse.accepted.{name}": ", ".join(files) for name, files in accepting.accepted(workspace).items()}


def run_name(workspace: Workspace) -> str:
    """The pipeline run's name for people: the day, the commit, the inputs."""
    commit = (workspace.git_commit() or "no-git")[:7]
    return f"{date.today().isoformat()} {commit} {workspace.inputs_digest()[:6]}"


def pipeline_record(workspace: Workspace, params: Params, registers: bool = True) -> PipelineRecord:
    """Everything there is to publish about the results in the workspace; without ``registers`` nothing of it is
    a candidate."""
    root = workspace.root
    metrics = json.loads((root / EVALUATED / "metrics.json").read_text(encoding="utf-8"))
    benchmarks = (
        json.loads((root / compare.BENCHMARK).read_text(encoding="utf-8"))
        if (root / compare.BENCHMARK).exists()
        else None
    )
    hashes, left_out = contents(root), _by_reference(workspace, params, registers)
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
            tolerance=INT8_TOLERANCE if model.quantised else FLOAT_TOLERANCE,
            reference=left_out.get(model.name),
            title=compare.title(root, model.name),
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
        windows=params.data.windows,
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
        task=task_of(metrics).name,
        **({} if registers else {"candidates": ()}),
    )


def _by_reference(workspace: Workspace, params: Params, registers: bool) -> dict[str, dict[str, str]]:
    """The models that are too large to be copied into MLflow or need code of their own, and where they can be had.

    The one that is registered is copied, whatever its size: who serves it has MLflow, and may not have DVC.
    """
    found = evaluated(workspace.root)
    names = {model.name for model in found}
    registered = next((name for name in CANDIDATES if name in names), None) if registers else None
    limit = 1000 * params.publish.copy_below_gb
    large = [
        model
        for model in found
        if model.name != registered
        and (megabytes(workspace.root / model.folder) > limit or brings_code(workspace.root / model.folder))
    ]
    remote = remotes.identity(workspace) if large else ""
    return {model.name: reference(workspace.root, model, remote) for model in large}


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
