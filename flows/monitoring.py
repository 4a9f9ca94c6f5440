"""Watching a model in use, as a flow: compares the log with the training, reports, and can start a new training."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from components.errors import UserError
from components.loader import load_params
from flows import artifacts, notifications, settings
from flows.drift import report, told
from flows.drift.monitor import champions, moment, monitor
from flows.repo.workspace import Workspace


@flow(name="monitoring", persist_result=False)
def monitoring(since: str | None = None, labels: str | None = None) -> State[Any]:
    """Compare what was logged of the model in use with its training.

    Args:
        since: rows from then on count: 7d, 24h, or a time such as 2026-11-20; none: monitoring.window_days.
        labels: a file with the columns id (or text) and label, of labels that came later.
    """
    workspace = Workspace.find()
    settings.apply(workspace.root)
    params, now = load_params(workspace.root / "params.yaml"), datetime.now(UTC)
    try:
        start = moment(since, now) if since else None
        found = monitor(workspace, params, champions(workspace, params), start, Path(labels) if labels else None, now)
    except UserError as error:
        notifications.notify(workspace.root, "failure", "Monitoring failed", str(error))
        return Failed(message=str(error))
    headline = report.headline(found)
    for line in (headline, *report.sentences(found, words=False)):
        get_run_logger().info(line)
    artifacts.monitoring(report.markdown(found))
    _tell(workspace, found)
    problem = (found["retraining"] or {}).get("problem")
    return Failed(message=problem) if problem else Completed(name=_state(found["outcome"]), message=headline)


def _tell(workspace: Workspace, found: dict[str, Any]) -> None:
    """Notify of drift once; again where a block couldn't be told, or when it comes back after a report without."""
    root = workspace.owner.root
    if found["outcome"] == report.STEADY:
        told.forget(root)
    if told.due(root, found):
        body = "\n".join(report.sentences(found, words=False))
        if not notifications.notify(workspace.root, "drift", f"Stillhouse: {report.headline(found)}", body):
            told.remember(root, found)


def _state(outcome: str) -> str:
    return outcome.title().replace(" ", "")
