"""`stillhouse sweep`: run a grid of parameter values, common stages once, and rank the combinations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.commands import common

if TYPE_CHECKING:
    from flows.sweeping.prepare import Prepared
    from flows.sweeping.under_way import Swept

SHOWN = 12


def sweep(
    grid: Annotated[
        list[str],
        typer.Argument(help="KEY=VALUE,VALUE,...; [0,2] is one value.", metavar="KEY=VALUE,...", show_default=False),
    ],
    metric: Annotated[
        str | None, typer.Option(help="What to rank by: MODEL.METRIC; else the task's headline, as lora.accuracy.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="How many stages may run at once; else cores / runtime.threads.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The sweep's name in MLflow.")] = None,
    plan: Annotated[bool, typer.Option("--plan", "--dry-run", help="Only say what it would take.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the worktrees when all is done.")] = False,
    pull: Annotated[
        bool | None,
        typer.Option("--pull/--no-pull", help="Restore from the DVC remote; done by default where one is set."),
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Give each stage's result to the DVC remote.")] = False,
) -> None:
    """Run every combination of parameter values in worktrees of their own, and rank them.

    0: done, even if some combinations failed; 1: all of them did; 2: refused before anything ran.
    """
    from flows.sweeping import grid as grids
    from flows.sweeping.prepare import experiment
    from flows.sweeping.prepare import task as task_of
    from flows.sweeping.results import check_metric

    workspace, console = common.workspace(), common.console()
    values, task = grids.parse(grid), task_of(workspace.root)
    ranked_by = check_metric(metric, task)
    if plan:
        from flows.sweeping.sweep import foresee

        _print_needs(console, foresee(workspace, values))
        return
    from flows.repo.remotes import remote
    from flows.sweeping.sweep import sweep as run_sweep
    from flows.sweeping.under_way import SweepOptions

    pull = remote(workspace) is not None if pull is None else pull
    swept = run_sweep(
        workspace,
        values,
        experiment(workspace.root),
        SweepOptions(ranked_by, parallel, name, keep, pull, push, task.headline.key),
        console=console,
        say_plan=lambda prepared: _print_needs(console, prepared),
    )
    _print_results(console, swept, task.headline.key)
    if all(result.failure for result in swept.results):
        console.print("[bold red]Every combination failed.[/]")
        raise typer.Exit(1)


def _print_needs(console: Console, prepared: Sequence[Prepared]) -> None:
    """How many stage runs the grid takes, and how many it shares."""
    from flows.sweeping.prepare import needs

    found = needs(prepared)
    count, stages = len(prepared), sum(len(each.upstream) for each in prepared)
    console.print(f"[bold]Sweep[/] {count} combination{'s' * (count != 1)}", highlight=False)
    for each in prepared[:SHOWN]:
        console.print(
            f"  {each.combination.number:>3}  {escape(each.combination.label)}", highlight=False, soft_wrap=True
        )
    if count > SHOWN:
        console.print(f"       and {count - SHOWN} more", highlight=False)
    lines = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for header in ("stage", "runs at most", "there already", "takes about"):
        lines.add_column(header, justify="left" if header == "stage" else "right")
    for need in found:
        takes = "" if not need.seconds else f"{need.seconds:.0f} s"
        lines.add_row(escape(need.stage), str(need.to_run), str(need.there), takes)
    console.print(lines)
    runs, there = sum(need.to_run for need in found), sum(need.there for need in found)
    console.print(
        f"  {stages} stage runs without sharing; at most {runs} to run, {there} there already, "
        f"{stages - runs - there} shared between combinations.\n",
        highlight=False,
        soft_wrap=True,
    )


def _print_results(console: Console, swept: Swept, headline: str) -> None:
    from flows.sweeping.results import table

    console.print()
    console.print(table(swept.results, swept.metric, headline))
    best = swept.results[0]
    if not best.failure:
        sets = " ".join(f"--set '{key}={value}'" for key, value in best.combination.texts.items())
        console.print(
            f"\nThe first one again, without training: `stillhouse run {escape(sets)}`; "
            "or set its values in params.yaml and `stillhouse run`.",
            highlight=False,
            soft_wrap=True,
        )
    if swept.url:
        console.print(f"In MLflow (`make ui`): {swept.url}", highlight=False, soft_wrap=True)
    else:
        console.print(
            "[yellow]Not done:[/] MLflow lacks results of this sweep; the same command again publishes them.",
            highlight=False,
            soft_wrap=True,
        )
