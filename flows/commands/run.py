"""`stillhouse run`, `plan` and `compare`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from components.errors import UserError
from flows import settings
from flows.commands import common
from flows.commands.plan_table import Foresight, print_plan
from flows.repo.choice import EVERYTHING, Choice
from flows.runs import ending
from flows.runs.options import RunOptions

if TYPE_CHECKING:
    from flows.repo.workspace import Workspace

Only = Annotated[list[str] | None, typer.Option("--only", metavar="STAGES", help="These stages: `a,b`, or repeated.")]
From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="This stage and all that depend on it.")]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="This stage and all that it depends on.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter for this alone; the checkout stays as it is."),
]
Pull = Annotated[
    bool | None,
    typer.Option("--pull/--no-pull", help="Restore from the DVC remote; done by default where one is set."),
]


def run(
    parallel: Annotated[int, typer.Option(min=1, help="How many independent stages may run at once.")] = 1,
    only: Only = None,
    first: From = None,
    last: Until = None,
    assignments: Set = None,
    pull: Pull = None,
    push: Annotated[bool, typer.Option("--push", help="Give each stage's results to the DVC remote.")] = False,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="End the run after 90s, 30m or 2.5h; what is done is kept.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run is at work here.")] = False,
) -> None:
    """Run what is out of date, publish the results, and compare the models."""
    from flows.runs import running

    console = common.console()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ending.noted())
        limit = common.seconds(time_limit) if time_limit else None
        workspace, options = _asked(only, first, last, assignments, pull, if_busy="wait" if wait else "refuse")
        if push:
            _check_remote(workspace, "--push")
        options = replace(options, parallel=parallel, push=push, time_limit=limit)
        stack.enter_context(running.exclusive(workspace, options.if_busy))
        foresight = _foresee(workspace, options)
        print_plan(console, foresight, _title(options))
        warnings = [] if foresight.idle else running.run(workspace, options)
    if foresight.left and _left(workspace, options):
        console.print("The rest, publication and comparison: `stillhouse run`.", highlight=False)
    else:
        _print_comparison(console, workspace)
    for warning in warnings:
        console.print(f"[yellow]Not done:[/] {escape(warning)}", highlight=False, soft_wrap=True)
    if warnings:
        console.print(f"The next `stillhouse run{' --push' if push else ''}` tries again.", highlight=False)


def plan(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    only: Only = None,
    first: From = None,
    last: Until = None,
    assignments: Set = None,
    pull: Pull = None,
    push: Annotated[bool, typer.Option("--push", help="Also say whether the DVC remote lacks results.")] = False,
) -> None:
    """Say what a run would do to each stage, and why; changes nothing.

    With --set it makes the worktree that the run would use, and leaves the checkout alone.
    """
    with ending.noted():
        workspace, options = _asked(only, first, last, assignments, pull)
        if push:
            _check_remote(workspace, "--push")
        options = replace(options, push=push)
        foresight = _foresee(workspace, options)
    if not as_json:
        print_plan(common.console(), foresight, _title(options))
        return
    keys = ("name", "action", "because", "step", "seconds")
    stages = [{key: getattr(stage, key) for key in keys} for stage in foresight.stages]
    typer.echo(json.dumps({"stages": stages, "then": list(foresight.then)}, ensure_ascii=False))


def _asked(
    only: Sequence[str] | None,
    first: str | None,
    last: str | None,
    assignments: Sequence[str] | None,
    pull: bool | None,
    if_busy: str = "refuse",
) -> tuple[Workspace, RunOptions]:
    """Where to run, a worktree if parameters were set for this run alone, and how."""
    workspace = common.workspace()
    choice = Choice(_names(workspace, only or []), first, last)
    if pull:
        _check_remote(workspace, "--pull")
    # Without a remote, nothing is pulled.
    options = RunOptions(choice=choice, pull=pull is not False, if_busy=if_busy)
    if not assignments:
        return workspace, options
    from flows.repo.overrides import parse, worktree_with
    from flows.repo.reasons import show

    values = parse(assignments)
    place = worktree_with(workspace, values, if_busy=if_busy)
    os.chdir(place.root)
    settings.apply(place.root)
    shown = {key: show(value) for key, value in values.items()}
    return place, replace(options, overrides=shown, registers=False)


def _names(workspace: Workspace, only: Sequence[str]) -> tuple[str, ...]:
    """The stages that ``--only`` names; an empty name must not come to mean all of them."""
    names = tuple(filter(None, (name.strip() for text in only for name in text.split(","))))
    if only and not names:
        raise UserError("--only names no stage.", f"The stages are: {', '.join(workspace.stages())}.", "parameters")
    return names


def _check_remote(workspace: Workspace, option: str) -> None:
    """Refuse what was asked for in so many words where there is no remote for it."""
    from flows.repo.remotes import remote

    if remote(workspace) is None:
        raise UserError(
            f"{option}: there is no default DVC remote.",
            "Set one: `dvc remote add --default NAME FOLDER-OR-ADDRESS`.",
            "parameters",
        )


def _foresee(workspace: Workspace, options: RunOptions) -> Foresight:
    """What a run would do to each stage, and the side effects that follow; checks what can be checked first."""
    from flows import receipts
    from flows.checks import check, check_plan

    params, stages = check(workspace), workspace.plan(options.choice, pull=options.pull)
    check_plan(params, stages)
    left = _left(workspace, options)
    if left:
        then = receipts.to_push(workspace) if options.push else []
    else:
        then = receipts.foreseen(workspace, params, stages, options.registers, options.push)
    return Foresight(stages, then, left)


def _left(workspace: Workspace, options: RunOptions) -> list[str]:
    """The stages that weren't chosen and are out of date, or may be when the chosen ones have run."""
    if options.choice == EVERYTHING:
        return []
    chosen = options.choice.names(workspace.stages())
    return [stage.name for stage in workspace.plan() if stage.name not in chosen and stage.action != "skip"]


def _title(options: RunOptions) -> str:
    if not options.overrides:
        return "Plan"
    return f"Plan with {', '.join(f'{key}={value}' for key, value in options.overrides.items())}"


def _place(workspace: Workspace) -> str:
    """The worktree's folder as seen from the checkout, with a slash; nothing for the checkout itself."""
    owner = workspace.owner.root
    if workspace.root == owner:
        return ""
    found = workspace.root
    return f"{found.relative_to(owner) if found.is_relative_to(owner) else found}/"


def _print_comparison(console: Console, workspace: Workspace) -> None:
    from flows import compare, models
    from flows.tracking.store import tracking_uri

    comparison = compare.comparison(workspace.root)
    console.print(compare.table(comparison, console.width))
    console.print()
    for sentence in compare.verdicts(comparison):
        console.print(Padding(escape(sentence), (0, 0, 0, 2)), highlight=False)
    _print_decision(console, workspace)
    console.print("\n[bold]Where to look next[/]")
    owner, place = workspace.owner.root, _place(workspace)
    for what, where in (
        ("runs, curves, models", _place_of_runs(owner, tracking_uri(owner))),
        *_reports(workspace, place),
        ("the data gate", f"{place}reports/gate/report.html"),
        ("figures", f"{place}artifacts/evaluate/plots/*.svg"),
        ("the models", f"{place}artifacts/{{teacher,distill,control,finetune}}/model"),
        *(
            ("as ONNX", f"{place}{model.folder}")
            for model in models.evaluated(workspace.root)
            if model in models.EXPORTED
        ),
    ):
        console.print(f"  {what:<22}{escape(where)}", highlight=False, soft_wrap=True)
    if place:
        console.print("The checkout and its own results are as they were.", highlight=False)


def _reports(workspace: Workspace, place: str) -> list[tuple[str, str]]:
    """The report and the card, where they have been written."""
    from flows.reporting.files import CARD, PAGE

    named = (("the report", PAGE), ("the model card", CARD))
    return [(what, f"{place}{where}") for what, where in named if (workspace.root / where).exists()]


def _print_decision(console: Console, workspace: Workspace) -> None:
    """What the gate decided of these results; nothing where it hasn't, as of an experiment's."""
    from flows.gating import report

    decision = report.read(workspace.root)
    if decision and decision.get("lock") == workspace.lock_digest():
        headline, *reasons = report.sentences(decision)
        console.print(f"\n[bold]{escape(headline)}[/]", highlight=False)
        for reason in reasons:
            console.print(Padding(escape(reason), (0, 0, 0, 2)), highlight=False)


def _place_of_runs(root: Path, uri: str) -> str:
    from flows.tracking.store import running_ui, shown, web_address

    address = web_address(uri)
    if uri.startswith("http"):
        return address
    first = "" if running_ui(uri) else "`make ui`, then "
    return f"{first}MLflow at {address} ({shown(uri).replace(f'{root}/', '')})"


def compare(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Compare the models of the last run."""
    from flows import compare as comparing

    workspace = common.workspace()
    if as_json:
        typer.echo(json.dumps(comparing.comparison(workspace.root), ensure_ascii=False))
        return
    _print_comparison(common.console(), workspace)
