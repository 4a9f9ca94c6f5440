"""The flow: check, plan, run the stages, then benchmark, publish and compare."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prefect import flow
from rich.console import Console
from rich.markup import escape

from components.errors import UserError
from components.params.project import Params
from flows import effects
from flows.checks import check, check_groups, check_plan
from flows.display import Display
from flows.models import models
from flows.repo.workspace import PlannedStage, Workspace
from flows.stages import Listener, run_stages
from flows.tracking.tracker import Parent, Tracker


@flow(name="stillhouse", validate_parameters=False)
def pipeline(root: str = ".", parallel: int = 1) -> list[str]:
    """Bring every stage up to date, then do the side effects that the results lack.

    Args:
        root: the workspace: the folder with dvc.yaml.
        parallel: how many independent stages may run at once.

    Returns:
        A warning for each side effect that failed and will be tried again by the next run.
    """
    workspace = Workspace(Path(root).resolve())
    params = check(workspace)
    plan = workspace.plan()
    check_plan(params, plan)
    tracker = Tracker(workspace.root, params.publish.experiment)
    with Display(Console()) as display, _tracked(tracker, workspace, plan, display) as parent:
        listeners, checks = _listeners(tracker, parent), {"validate": lambda: _check_groups(workspace, params)}
        run_stages(workspace, plan, display, parallel=parallel, listeners=listeners, checks=checks)
        return effects.apply_effects(workspace, params, tracker, display)


def _check_groups(workspace: Workspace, params: Params) -> None:
    """See to it, before a model is trained, that the groups which params.yaml names are in the data."""
    schema = json.loads((workspace.root / "artifacts/validate/schema.json").read_text(encoding="utf-8"))
    check_groups(schema["groups"], params)


@contextlib.contextmanager
def _tracked(
    tracker: Tracker, workspace: Workspace, plan: Sequence[PlannedStage], display: Display
) -> Iterator[Parent | None]:
    """The MLflow parent run while the pipeline runs; a failure ends it. None when no stage will run."""
    if all(stage.action == "skip" for stage in plan):
        yield None
        return
    parent = None
    try:
        parent = tracker.begin(workspace.inputs_digest(), effects.run_name(workspace))
    except UserError as error:  # training goes on; publication tries again
        display.say(f"  [yellow]![/] {escape(error.message)}")
    try:
        yield parent
    except BaseException as error:
        tracker.fail(parent, str(error), "FAILED" if isinstance(error, Exception) else "KILLED")
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
                stream.close("FAILED")
                raise

        return listen

    return {model.stage: listener(model.name) for model in models()} if parent else {}
