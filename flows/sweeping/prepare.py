"""Before a sweep: a worktree for every combination, all of them checked, and what the grid will take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.loader import load_params, load_yaml
from components.ml.tasks.task import Task
from flows.repo import keys, worktrees
from flows.repo.overrides import worktree_with
from flows.repo.workspace import PlannedStage, Workspace
from flows.sweeping.grid import Combination
from flows.sweeping.results import read_metrics

TO_RUN = ("run", "resume", "depends")


def check_project(workspace: Workspace, plan: Sequence[PlannedStage]) -> None:
    """Check a combination as `stillhouse run` checks the project, its device as well.

    Raises:
        UserError: all that is wrong with it.
    """
    from flows.checks import check, check_plan

    check_plan(check(workspace), plan)


@dataclass(frozen=True)
class Project:
    """What a sweep has to know of the project, beside its graph.

    ``open`` gives the worktree of that name with these values, ``check`` refuses a combination, ``metrics`` reads
    what a finished one came to.
    """

    open: Callable[[Workspace, Mapping[str, Any], str], Workspace] = worktree_with
    check: Callable[[Workspace, Sequence[PlannedStage]], None] = check_project
    metrics: Callable[[Path], Mapping[str, float]] = read_metrics


@dataclass(frozen=True)
class Prepared:
    """A combination in its worktree; ``keys`` tell of each stage what decides its result."""

    combination: Combination
    workspace: Workspace
    keys: Mapping[str, str]
    upstream: Mapping[str, set[str]]
    plan: Sequence[PlannedStage]


def prepare(
    owner: Workspace, combinations: Sequence[Combination], project: Project, name: Callable[[Combination], str]
) -> list[Prepared]:
    """Open and check every combination; ``name`` names its worktree, and may give all of them the same.

    Raises:
        UserError: what is wrong with which combinations, in one message.
    """
    prepared: list[Prepared] = []
    problems: list[UserError] = []
    for combination in combinations:
        try:
            prepared.append(_prepare(owner, combination, project, name(combination)))
        except UserError as error:
            if error.kind not in ("parameters", "model", "data"):
                raise
            problems.append(error)
            if len(combinations) > 1:
                told = error.message.replace("--set ", "")
                problems[-1] = UserError(
                    f"{combination.label}:\n  " + told.replace("\n", "\n  "), error.remedy, error.kind
                )
    if problems:
        raise UserError("\n".join(error.message for error in problems), problems[0].remedy, problems[0].kind)
    return prepared


def _prepare(owner: Workspace, combination: Combination, project: Project, name: str) -> Prepared:
    workspace = project.open(owner, combination.values, name)
    plan = workspace.plan()
    project.check(workspace, plan)
    upstream = {stage.name: stage.upstream for stage in workspace.stages().values()}
    return Prepared(combination, workspace, keys.foreseen(workspace), upstream, plan)


def remove(owner: Workspace, names: Sequence[str]) -> None:
    """Remove worktrees; results stay in DVC's cache. One that is in use stays, too."""
    for name in names:
        try:
            worktrees.remove(owner, name)
        except UserError as error:
            if error.kind != "busy":
                raise


@dataclass(frozen=True)
class Need:
    """What the grid takes of one stage: ``distinct`` results for all combinations, of which ``there`` are there."""

    stage: str
    distinct: int
    there: int
    seconds: float | None

    @property
    def to_run(self) -> int:
        """How often the stage runs, at most: it may turn out that nothing changed for it."""
        return self.distinct - self.there


def needs(prepared: Sequence[Prepared]) -> list[Need]:
    """For each stage, in the graph's order, what the grid takes."""
    found: list[Need] = []
    for stage in prepared[0].upstream:
        actions: dict[str, PlannedStage] = {}
        for each in prepared:
            planned = next((item for item in each.plan if item.name == stage), None)
            if planned and stage in each.keys:
                actions.setdefault(each.keys[stage], planned)
        running = [planned for planned in actions.values() if planned.action in TO_RUN]
        times = [planned.seconds for planned in running if planned.seconds is not None]
        seconds = sum(times) if len(times) == len(running) else None
        found.append(Need(stage, len(actions), len(actions) - len(running), seconds))
    return found


def default_parallel(prepared: Sequence[Prepared]) -> int:
    """As many stages at once as the machine has cores for, by the threads that a stage takes."""
    threads = [_threads(each.workspace.root) for each in prepared]
    return max(1, _cores() // max([1, *threads]))


def task(root: Path) -> Task:
    """What the models of the project do."""
    return load_params(root / "params.yaml").data.kind


def experiment(root: Path) -> str:
    """The MLflow experiment that params.yaml names."""
    return load_params(root / "params.yaml").publish.experiment


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(root: Path) -> int:
    runtime = load_yaml(root / "params.yaml").get("runtime")
    threads = runtime.get("threads") if isinstance(runtime, dict) else None
    return threads if isinstance(threads, int) else 1
