"""The flow: check, plan, run the stages, then benchmark, publish and compare."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from rich.console import Console
from rich.markup import escape

from components.errors import UserError
from components.params.project import Params
from flows import artifacts, effects
from flows.checks import check, check_groups, check_plan
from flows.models import models
from flows.repo import remotes
from flows.repo.choice import EVERYTHING
from flows.repo.workspace import PlannedStage, Workspace
from flows.runs import retries
from flows.runs.display import Display
from flows.runs.flow_runs import watched
from flows.runs.options import RunOptions
from flows.runs.stopping import STOPPER, Stopped
from flows.stages import Listener, run_stages
from flows.tracking.tracker import Parent, Tracker

GOODBYE_SECONDS = 3.0  # for telling MLflow that the run was stopped
TRIES_TO_BEGIN = 2  # publication has more of them; training goes on without


@flow(name="stillhouse", validate_parameters=False)
def pipeline(root: str = ".", options: RunOptions | None = None) -> list[str] | State[Any]:
    """Bring every chosen stage up to date, then do the side effects that the results lack.

    Args:
        root: the workspace: the folder with dvc.yaml.
        options: how to run.

    Returns:
        A warning for each side effect that failed and will be tried again by the next run; or the state of a
        run that was stopped.
    """
    STOPPER.listen()  # Prefect has taken SIGTERM for itself
    workspace = Workspace(Path(root).resolve())
    try:
        with watched(workspace):
            return _bring_up_to_date(workspace, options or RunOptions())
    except Stopped as stopped:
        STOPPER.stopped = stopped
        return stopped.state()


def _bring_up_to_date(workspace: Workspace, options: RunOptions) -> list[str]:
    params = check(workspace)
    plan = workspace.plan(options.choice, pull=options.pull)
    check_plan(params, plan)
    artifacts.plan(plan)
    tracker = Tracker(workspace.root, params.publish.experiment)
    with Display(Console()) as display, _tracked(tracker, workspace, plan, display, options) as parent:
        _say_limits(workspace, options, display)
        listeners, checks = _listeners(tracker, parent), {"validate": lambda: _check_groups(workspace, params)}
        results = run_stages(workspace, plan, display, options, listeners=listeners, checks=checks)
        warnings = [result.warning for result in results if result.warning]
        if left := _left_out(workspace, options):
            reason = f"only some stages were asked for; out of date: {', '.join(left)}"
            display.say(f"  Not published: {reason}")
            tracker.fail(parent, reason, "KILLED")
            return warnings
        if warnings:  # of what could not be pushed: the next run tries all of it again
            options = replace(options, push=False)
        shared = [result.name for result in results] if options.push else []
        outcomes = {result.name: result.outcome for result in results}
        return warnings + effects.apply_effects(workspace, params, tracker, display, options, shared, outcomes)


def _left_out(workspace: Workspace, options: RunOptions) -> list[str]:
    """The stages that are out of date after a run of chosen ones."""
    if options.choice == EVERYTHING:
        return []
    return [stage.name for stage in workspace.plan() if stage.action != "skip"]


def _say_limits(workspace: Workspace, options: RunOptions, display: Display) -> None:
    if (options.pull or options.push) and (limits := remotes.limits(workspace)):
        display.say(f"  [yellow]![/] {escape(limits)}")


def _check_groups(workspace: Workspace, params: Params) -> None:
    """See to it, before a model is trained, that the groups which params.yaml names are in the data."""
    schema = json.loads((workspace.root / "artifacts/validate/schema.json").read_text(encoding="utf-8"))
    check_groups(schema["groups"], params)


@contextlib.contextmanager
def _tracked(
    tracker: Tracker, workspace: Workspace, plan: Sequence[PlannedStage], display: Display, options: RunOptions
) -> Iterator[Parent | None]:
    """The MLflow parent run while the pipeline runs; a failure ends it. None when no stage will run."""
    if all(stage.action == "skip" for stage in plan):
        yield None
        return
    parent = None
    tags = effects.override_tags(options)
    try:
        parent = retries.again(
            lambda: tracker.begin(workspace.inputs_digest(), effects.run_name(workspace), tags),
            lambda text: display.say(f"  [yellow]![/] {escape(text)}"),
            at_most=TRIES_TO_BEGIN,
        )
        artifacts.mlflow_run(parent.url)
    except UserError as error:  # training goes on; publication tries again
        display.say(f"  [yellow]![/] {escape(error.message)}")
    try:
        yield parent
    except BaseException as error:
        reason, status = str(error), "FAILED" if isinstance(error, Exception) else "KILLED"
        telling = threading.Thread(target=tracker.fail, args=(parent, reason, status), daemon=True)
        telling.start()
        telling.join(GOODBYE_SECONDS if isinstance(error, Stopped) else None)
        raise


def _listeners(
    tracker: Tracker, parent: Parent | None
) -> Mapping[str, Callable[[], contextlib.AbstractContextManager[Listener]]]:
    """For each stage that trains a model, what streams its curve to MLflow."""

    def listener(model: str) -> Callable[[], contextlib.AbstractContextManager[Listener]]:
        @contextlib.contextmanager
        def listen() -> Iterator[Listener]:
            stream = tracker.follow(parent, model)
            try:
                yield stream.push
            except BaseException:
                stream.close("KILLED" if STOPPER.reason else "FAILED")
                raise

        return listen

    return {model.stage: listener(model.name) for model in models()} if parent else {}
