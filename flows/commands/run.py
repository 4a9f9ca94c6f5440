"""`stillhouse run`, `plan` and `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flows.commands import common

if TYPE_CHECKING:
    from flows.repo.workspace import PlannedStage, Workspace

ACTIONS = {"run": "green", "resume": "green", "restore": "cyan", "skip": "dim", "depends": "yellow"}


def run(
    parallel: Annotated[int, typer.Option(min=1, help="How many independent stages may run at once.")] = 1,
) -> None:
    """Run what is out of date, publish the results, and compare the models."""
    workspace, console = common.workspace(), common.console()
    plan, then = _foresee(workspace)
    _print_plan(console, plan, then)
    warnings: list[str] = []
    if then or any(stage.action != "skip" for stage in plan):
        warnings = _run_flow(workspace, parallel)
    _print_comparison(console, workspace)
    for warning in warnings:
        console.print(f"[yellow]Not done:[/] {escape(warning)}", highlight=False, soft_wrap=True)
    if warnings:
        console.print("The next `stillhouse run` tries again.", highlight=False)


def _foresee(workspace: Workspace) -> tuple[list[PlannedStage], list[str]]:
    """What a run would do to each stage, and the side effects that follow; checks what can be checked first."""
    from flows import receipts
    from flows.checks import check, check_plan

    params, plan = check(workspace), workspace.plan()
    check_plan(params, plan)
    return plan, receipts.foreseen(workspace, params, plan)


def _run_flow(workspace: Workspace, parallel: int) -> list[str]:
    from flows.server import prefect_api

    with prefect_api(workspace.root):
        from flows.pipeline import pipeline

        warnings: list[str] = pipeline(str(workspace.root), parallel)
    return warnings


def _print_plan(console: Console, plan: list[PlannedStage], then: list[str]) -> None:
    if not then and all(stage.action == "skip" for stage in plan):
        console.print("[green]Nothing changed[/]: every stage is up to date and published.\n")
        return
    console.print("[bold]Plan[/]")
    lines = Table.grid(padding=(0, 1))
    for stage in plan:
        more = f" and {len(stage.because) - 3} more" if len(stage.because) > 3 else ""
        because = Text("; ".join(stage.because[:3]) + more, style="dim")
        lines.add_row(f"  {stage.name:<12}", Text(f"{stage.action:<8}", style=ACTIONS[stage.action]), because)
    console.print(lines)
    console.print(f"  then: {', '.join(then)}\n" if then else "", highlight=False)


def _print_comparison(console: Console, workspace: Workspace) -> None:
    from flows import compare
    from flows.tracking.store import tracking_uri

    comparison = compare.comparison(workspace.root)
    console.print(compare.table(comparison, console.width))
    console.print()
    for sentence in compare.verdicts(comparison):
        console.print(Padding(escape(sentence), (0, 0, 0, 2)), highlight=False)
    console.print("\n[bold]Where to look next[/]")
    for what, where in (
        ("runs, curves, models", _place_of_runs(workspace.root, tracking_uri(workspace.root))),
        ("the data gate", "reports/gate/report.html"),
        ("figures", "artifacts/evaluate/plots/*.svg"),
        ("the models", "artifacts/{teacher,distill,control,finetune}/model"),
    ):
        console.print(f"  {what:<22}{escape(where)}", highlight=False, soft_wrap=True)


def _place_of_runs(root: Path, uri: str) -> str:
    from flows.tracking.store import running_ui, shown, web_address

    address = web_address(uri)
    if uri.startswith("http"):
        return address
    first = "" if running_ui(uri) else "`make ui`, then "
    return f"{first}MLflow at {address} ({shown(uri).replace(f'{root}/', '')})"


def plan(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Say what a run would do to each stage, and why; changes nothing."""
    planned, then = _foresee(common.workspace())
    if as_json:
        stages = [{"name": stage.name, "action": stage.action, "because": stage.because} for stage in planned]
        typer.echo(json.dumps({"stages": stages, "then": then}, ensure_ascii=False))
        return
    _print_plan(common.console(), planned, then)


def compare(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Compare the models of the last run."""
    from flows import compare as comparing

    workspace = common.workspace()
    if as_json:
        typer.echo(json.dumps(comparing.comparison(workspace.root), ensure_ascii=False))
        return
    _print_comparison(common.console(), workspace)
