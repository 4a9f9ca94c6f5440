"""Compares what was logged of the model in use with its training, and writes the report."""

from __future__ import annotations

import dataclasses
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Task
from components.params.monitoring import Monitoring
from components.params.project import Params
from flows.drift import comparing, late, report, said, scored, shifts, texts, training, watched
from flows.drift.comparing import Window
from flows.drift.said import Said
from flows.repo.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from flows.tracking.champions import Champions, Version


def champions(workspace: Workspace, params: Params) -> Champions:
    """The registered model whose champion is watched."""
    from flows.tracking.champions import Champions
    from flows.tracking.tracker import Tracker

    return Champions(Tracker(workspace.root, params.publish.experiment), params.publish.registered_model)


def moment(text: str, now: datetime) -> datetime:
    """``7d``, ``24h`` or ``90m`` before ``now``, or a date or time; without a zone it is UTC.

    Raises:
        UserError: it is none of these, or not before ``now``.
    """
    units = {"d": "days", "h": "hours", "m": "minutes"}
    try:
        if text[-1:] in units:
            found = now - timedelta(**{units[text[-1]]: float(text[:-1])})
        else:
            parsed = datetime.fromisoformat(text)
            found = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        found = now
    if found >= now:
        raise UserError(
            f"Expected for --since 7d, 24h, 90m or a time in the past such as 2026-11-20, got '{text}'.",
            "",
            "parameters",
        )
    return found.astimezone(UTC)


def monitor(
    workspace: Workspace,
    params: Params,
    registered: Champions,
    since: datetime | None = None,
    labels: Path | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Compare the logged rows of the champion with its training; write and return the report.

    Starts the training deployment if there is drift and parameters ask for it; what keeps that from being done is
    told in the report.

    Raises:
        UserError: there is no model, no training rows, something is wrong with the log or the labels, or the task has
            no labels that a model can be right about by the row (``parameters``).
    """
    until = now or datetime.now(UTC)
    start = since or until - timedelta(days=params.monitoring.window_days)
    watched.check(workspace.root)
    version = watched.version(registered)
    if labels is not None:
        _check_task(params.data.kind)
    if labels is not None and not labels.is_file():
        raise late.unreadable(labels, "there is no such file")
    empty = _report(registered, version, params, start, until)
    workspace.state.mkdir(exist_ok=True)
    window = Window(scored.files(workspace.owner.root, start), version.content or "", start, until)
    found = empty | _compared(workspace, params, registered, version, window, labels)
    report.write(workspace.root, found)  # now: whatever keeps the training from being started, this is known
    if found["outcome"] == report.DRIFT and params.monitoring.retrain == "drift":
        found["retraining"] = training.start(workspace, params.monitoring.deployment, version.content or "")
        report.write(workspace.root, found)
    return found


def _check_task(task: Task) -> None:
    """See to it that labels that came later can be compared."""
    if not task.classes_per_row:
        known = ", ".join(name for name, one in TASKS.items() if one.classes_per_row)
        raise UserError(
            f"Labels that came later are compared where a row has one class ({known}); this project's task is "
            f"{task.name}.",
            "Leave out --labels: texts are compared whatever the task.",
            "parameters",
        )


def _report(
    registered: Champions, version: Version, params: Params, since: datetime, until: datetime
) -> dict[str, Any]:
    """The report of an empty log; all keys are there."""
    return {
        "outcome": report.NOTHING,
        "model": {"name": registered.name, "version": version.number, "content": version.content},
        "group": params.monitoring.group or params.finetune.group,
        "since": since.isoformat(timespec="seconds"),
        "until": until.isoformat(timespec="seconds"),
        "rows": 0,
        "first": None,
        "last": None,
        "other_models": {},
        "tests": [],
        "labels": None,
        "notes": [],
        "retraining": None,
        "rules": params.monitoring.model_dump(),
    }


def _compared(
    workspace: Workspace, params: Params, registered: Champions, version: Version, window: Window, labels: Path | None
) -> dict[str, Any]:
    """What the log adds to the report."""
    rules, root = params.monitoring, workspace.root
    group = rules.group or params.finetune.group
    with (
        tempfile.TemporaryDirectory(prefix="monitoring-", dir=workspace.state) as folder,
        texts.opened(Path(folder)) as database,
    ):
        logged = scored.opened(database, window.files, window.content, window.since, window.until)
        enough = logged.rows >= rules.min_rows
        reference: Said | None = None
        notes: list[str] = []
        if not params.data.kind.classes_per_row:
            notes = [_only_texts(params.data.kind)]
        elif enough or (labels and logged.rows):
            reference, notes = _on_test_rows(workspace, registered, version, group)
        tests: list[shifts.Shift] = []
        told = None
        if labels:
            tests, told = _of_labels(database, root, reference, labels, rules)
        if enough:
            tests += comparing.of_texts(database, root, group, window, rules)
            if reference:
                tests += comparing.of_predictions(reference, said.of_log(database), rules)
    tests = shifts.decided(tests, rules.level)
    return {
        "outcome": _outcome(logged, enough, tests),
        "rows": logged.rows,
        "first": logged.first.isoformat(timespec="seconds") if logged.first else None,
        "last": logged.last.isoformat(timespec="seconds") if logged.last else None,
        "other_models": logged.others,
        "tests": [dataclasses.asdict(test) for test in tests],
        "labels": told,
        "notes": notes,
    }


def _of_labels(
    database: duckdb.DuckDBPyConnection, root: Path, reference: Said | None, labels: Path, rules: Monitoring
) -> tuple[list[shifts.Shift], dict[str, Any]]:
    """The test of the accuracy on labels that came later, if it can be made, and what became of these labels."""
    known = list(reference.labels) if reference else said.labels_of(root / watched.VALIDATED / "schema.json")
    matched, before = late.match(database, labels, known), reference.hits if reference else None
    tests = comparing.of_hits(before, matched.hits, rules)
    return tests, matched.told(before, tested=bool(tests))


def _outcome(logged: scored.Logged, enough: bool, tests: list[shifts.Shift]) -> str:
    if any(test.drifted for test in tests):
        return report.DRIFT
    if enough:
        return report.STEADY if tests else report.UNTESTED
    if logged.rows:
        return report.TOO_FEW
    return report.OTHER_MODEL if logged.others else report.NOTHING


def _only_texts(task: Task) -> str:
    return (
        "What the model says isn't looked at: predicted labels, confidence and labels that came later are compared "
        f"where a row has one class, which {task.name} doesn't have. Texts are compared."
    )


def _on_test_rows(
    workspace: Workspace, registered: Champions, version: Version, group: str
) -> tuple[Said | None, list[str]]:
    """What the model said of the test rows, and what stands in the way of comparing with it."""
    notes = []
    known = (version.decision or {}).get("test")
    if known not in (None, workspace.output_hash(watched.TEST)):
        notes.append("The data here are others than those the model was decided on: it is compared with today's.")
    try:
        predicted = watched.predictions(workspace, registered, version)
    except UserError as error:
        if error.kind != "model":
            raise
        return None, [*notes, f"What the model says can't be compared: {error.message}"]
    if predicted is None:
        return None, [*notes, "What the model says can't be compared: it knows other labels than today's data."]
    reference = comparing.on_test_rows(workspace.root, group, predicted)
    if not reference.rows:
        return None, [*notes, f"What the model says can't be compared: no test row belongs to the group '{group}'."]
    return reference, notes
