"""Runs in MLflow: one parent for each pipeline run, one flat child for each model; found by their tags."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from flows.tracking.record import TITLES, metric_name
from flows.tracking.store import artifact_root, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

INPUTS, LOCK = "stillhouse.inputs", "stillhouse.lock"
MODEL, CONTENT = "stillhouse.model", "stillhouse.content"
ORDER = "stillhouse.order"
"""Sorts models: falling, it gives the newest pipeline run's first, and of one run the teacher's first."""
FAILURE = "stillhouse.failure"
NOTE = "mlflow.note.content"
_PARENT = "mlflow.parentRunId"
_SOURCE = {"mlflow.source.name": "stillhouse run", "mlflow.source.type": "LOCAL"}
_LONGEST = {"param": 6000, "tag": 8000}  # MLflow's limits, in characters
_AT_ONCE = 100  # MLflow's limit of params and of tags in one call


def experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment of that name, made if it is missing."""
    found = client.get_experiment_by_name(name)
    if found is None:
        root = artifact_root(client.tracking_uri)
        folder = "".join(character if character.isalnum() or character in "-_" else "-" for character in name)
        return str(client.create_experiment(name, artifact_location=root and f"{root}/{folder}"))
    if found.lifecycle_stage != "active":
        raise UserError(
            f"The MLflow experiment '{name}' has been deleted.",
            f"Restore it (`MLFLOW_TRACKING_URI={shown(client.tracking_uri)} mlflow experiments restore "
            f"-x {found.experiment_id}`) or name another: publish.experiment.",
            kind="tracking",
        )
    return str(found.experiment_id)


def begin_parent(client: MlflowClient, experiment: str, inputs: str, name: str, tags: Mapping[str, str]) -> Run:
    """The parent run for these inputs: an unfinished one goes on, a published one serves again, else a new one."""
    known = search(client, experiment, {INPUTS: inputs})
    known = [run for run in known if _PARENT not in run.data.tags]
    open_runs = [run for run in known if LOCK not in run.data.tags]
    if open_runs:
        return reopen(client, open_runs[0])
    if known:
        return known[0]
    return client.create_run(experiment, tags={**_SOURCE, INPUTS: inputs, **tags}, run_name=name)


def published_parent(client: MlflowClient, experiment: str, inputs: str, lock: str, name: str) -> tuple[Run, bool]:
    """The parent run of this lock digest and whether it is new to it; superfluous open runs are removed."""
    of_inputs = search(client, experiment, {INPUTS: inputs})
    open_runs = [run for run in of_inputs if LOCK not in run.data.tags and _PARENT not in run.data.tags]
    done = search(client, experiment, {LOCK: lock})
    if done:
        for run in open_runs:
            if run.info.status == "RUNNING":
                _discard(client, experiment, run)
        return done[0], False
    if open_runs:
        return open_runs[0], True
    return client.create_run(experiment, tags={**_SOURCE, INPUTS: inputs}, run_name=name), True


def child(client: MlflowClient, experiment: str, parent: str, model: str, content: str | None = None) -> Run:
    """The child run of a model: with this content, or one that streamed before its content was known, or a new one."""
    known = search(client, experiment, {_PARENT: parent, MODEL: model})
    same = [run for run in known if run.data.tags.get(CONTENT) == content]
    fresh = [run for run in known if CONTENT not in run.data.tags]
    candidates = (same or fresh) if content else (fresh or known)
    if candidates:
        return candidates[0]
    tags = {**_SOURCE, _PARENT: parent, MODEL: model}
    return client.create_run(experiment, tags=tags, run_name=TITLES.get(model, model))


def rename(client: MlflowClient, run: Run, name: str) -> None:
    """Give a run its name for people, unless it has it."""
    if run.info.run_name != name:
        client.update_run(run.info.run_id, name=name)


def children(client: MlflowClient, experiment: str, parent: str) -> list[Run]:
    """The runs under a parent."""
    return search(client, experiment, {_PARENT: parent})


def search(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> list[Run]:
    """Runs with all these tags, newest first."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"]))


def reopen(client: MlflowClient, run: Run) -> Run:
    """Let an ended run go on."""
    if run.info.status not in ("RUNNING", "FINISHED"):
        client.update_run(run.info.run_id, status="RUNNING")
    if FAILURE in run.data.tags:
        client.delete_tag(run.info.run_id, FAILURE)
    return run


def finish(client: MlflowClient, run_id: str) -> None:
    """End a run well, unless it has; its end time then stays."""
    run = client.get_run(run_id)
    if FAILURE in run.data.tags:
        client.delete_tag(run_id, FAILURE)
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED")


def fail(client: MlflowClient, experiment: str, parent: str, status: str, reason: str) -> None:
    """End a parent and its running children as FAILED or KILLED; a published one is left as it is."""
    run = client.get_run(parent)
    if LOCK in run.data.tags and run.info.status == "FINISHED":
        return
    client.set_tag(parent, FAILURE, reason[: _LONGEST["tag"]])
    for ended in [*children(client, experiment, parent), run]:
        if ended.info.status == "RUNNING":
            client.set_terminated(ended.info.run_id, status)


def log_once(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    **ties: str,
) -> None:
    """Log in few calls what the run lacks: params and tags are written once, metrics when their value is new.

    ``ties`` are Metric's ``model_id``, ``dataset_name`` and ``dataset_digest``.
    """
    from mlflow.entities import Metric, Param, RunTag

    data, now = client.get_run(run_id).data, int(time.time() * 1000)
    new_metrics = {key: value for key, value in (metrics or {}).items() if not _same(data.metrics.get(key), value)}
    named = {metric_name(key): str(value) for key, value in (params or {}).items()}
    new_params = {key: value for key, value in named.items() if key not in data.params}
    new_tags = {key: value for key, value in (tags or {}).items() if key not in data.tags}
    logged_metrics = [Metric(key, value, now, 0, **ties) for key, value in new_metrics.items()]
    logged_params = [Param(key, value[: _LONGEST["param"]]) for key, value in new_params.items()]
    logged_tags = [RunTag(key, value[: _LONGEST["tag"]]) for key, value in new_tags.items()]
    for start in range(0, max(len(logged_metrics), len(logged_params), len(logged_tags)), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        client.log_batch(run_id, metrics=logged_metrics[part], params=logged_params[part], tags=logged_tags[part])


def describe(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set the run's tags, whether they are there already or not."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value[: _LONGEST["tag"]]) for key, value in tags.items()])


def _same(old: float | None, new: float) -> bool:
    return old is not None and (old == new or (math.isnan(old) and math.isnan(new)))


def _discard(client: MlflowClient, experiment: str, run: Run) -> None:
    """Remove the run that was begun for a result which turned out to be there already."""
    for superfluous in [*children(client, experiment, run.info.run_id), run]:
        client.delete_run(superfluous.info.run_id)
