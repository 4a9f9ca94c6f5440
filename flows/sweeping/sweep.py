"""Runs a sweep: every combination in its worktree, equal stages once, one MLflow parent, a ranked table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from rich.console import Console

from flows.repo.workspace import Workspace
from flows.runs.display import Display
from flows.sweeping.grid import Grid, combinations, digest
from flows.sweeping.prepare import Prepared, Project, prepare, remove
from flows.sweeping.under_way import Run, SweepOptions, Swept
from flows.tracking.sweeps import SweepTracker


def foresee(owner: Workspace, grid: Grid, project: Project | None = None) -> list[Prepared]:
    """Check every combination and say what each would take, in one scratch worktree that is removed again.

    Raises:
        UserError: what is wrong with which combinations.
    """
    name = f"sweep-{_digest(owner, grid)[:8]}-plan"
    try:
        return prepare(owner, combinations(grid), project or Project(), lambda _: name)
    finally:
        remove(owner, [name])


def sweep(
    owner: Workspace,
    grid: Grid,
    experiment: str,
    options: SweepOptions,
    *,
    console: Console | None = None,
    project: Project | None = None,
    say_plan: Callable[[Sequence[Prepared]], None] = lambda _: None,
) -> Swept:
    """Run the grid. A combination that fails stands in the result with its reason and keeps no other from running.

    Interrupted, it ends what runs; the same call later goes on from what was finished, in the same MLflow run.

    Args:
        owner: the checkout; its files, dvc.lock and outputs stay as they are.
        grid: the values for each key.
        experiment: the MLflow experiment.
        options: see there.
        console: where progress is shown.
        project: what a combination is opened, checked and measured with.
        say_plan: is told of all combinations before anything runs.

    Raises:
        UserError: what is wrong with which combinations, or the same sweep is under way (``busy``); nothing was run.
        KeyboardInterrupt: Ctrl-C or SIGTERM; every process of it has ended.
    """
    from flows.runs import flow_runs, repair
    from flows.runs.run_lock import only_run
    from flows.runs.running import exclusive
    from flows.server import prefect_api

    project, identity = project or Project(), _digest(owner, grid)
    points = combinations(grid)
    names = {point.number: f"sweep-{identity[:8]}-{point.number}" for point in points}
    prepared = prepare(owner, points, project, lambda point: names[point.number])
    say_plan(prepared)
    tracker = SweepTracker(owner.root, experiment, identity)
    with ExitStack() as stack:
        lock = stack.enter_context(exclusive(prepared[0].workspace))
        for each in prepared[1:]:
            stack.enter_context(only_run(each.workspace))
            repair.mend(each.workspace)
        stack.enter_context(prefect_api(owner.root))
        flow_runs.close_killed(lock.left)
        lock.settle()
        run = Run(owner, prepared, project, options, tracker, Display(console or Console()))
        swept = run.tracked(options.name or _name(owner, grid))
    if not options.keep:
        remove(owner, list(names.values()))
    return swept


def _digest(owner: Workspace, grid: Grid) -> str:
    return digest(grid, owner.inputs_digest())


def _name(owner: Workspace, grid: Grid) -> str:
    commit = (owner.git_commit() or "no-git")[:7]
    return f"sweep {' '.join(grid)} {commit}"
