"""The `stillhouse` command. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from components.errors import UserError, disk_full
from flows import settings

if TYPE_CHECKING:
    from flows.workspace import PlannedStage, Workspace


class Commands(TyperGroup):
    """Ends every command with a readable message and its exit code, whatever was raised in it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; 0 done, 1 internal error, 2 the user's mistake or a failed gate, 130 interrupted."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _console(stderr=True).print("[yellow]Interrupted.[/] What was finished is kept; run again to go on.")
            raise typer.Exit(130) from None
        except UserError as error:
            _refuse(error)
        except Exception as error:
            full = disk_full(error)
            if full is None:
                raise
            _refuse(full)


app = typer.Typer(
    cls=Commands,
    help="Turn a large language model into a small, fast, task-specific one, and prove that it is good enough.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Get, add and version the data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
ACTIONS = {"run": "green", "restore": "cyan", "skip": "dim", "depends": "yellow"}


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    app()


def _interrupt() -> None:
    raise KeyboardInterrupt


def _console(*, stderr: bool = False) -> Console:
    """A console that leaves `x:100:` as it is."""
    return Console(stderr=stderr, emoji=False)


def _refuse(error: UserError) -> NoReturn:
    """Show the user's mistake and end with exit code 2."""
    console = _console(stderr=True)
    console.print(f"[bold red]Error:[/] {escape(error.message)}", highlight=False, soft_wrap=True)
    if error.remedy:
        console.print(f"[bold]To do:[/] {escape(error.remedy)}", highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def _workspace() -> Workspace:
    from flows.workspace import Workspace

    found = Workspace.find()
    os.chdir(found.root)
    settings.apply(found.root)
    return found


@app.command()
def run(
    parallel: Annotated[int, typer.Option(min=1, help="How many independent stages may run at once.")] = 1,
) -> None:
    """Run what is out of date, publish the results, and compare the models."""
    workspace, console = _workspace(), _console()
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


@app.command()
def plan(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Say what a run would do to each stage, and why; changes nothing."""
    planned, then = _foresee(_workspace())
    if as_json:
        stages = [{"name": stage.name, "action": stage.action, "because": stage.because} for stage in planned]
        typer.echo(json.dumps({"stages": stages, "then": then}, ensure_ascii=False))
        return
    _print_plan(_console(), planned, then)


@app.command()
def compare(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Compare the models of the last run."""
    from flows import compare as comparing

    workspace = _workspace()
    if as_json:
        typer.echo(json.dumps(comparing.comparison(workspace.root), ensure_ascii=False))
        return
    _print_comparison(_console(), workspace)


@app.command()
def ui(
    prefect_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the Prefect UI; else 4200 or the next free one.")
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the MLflow UI; else 5000 or the next free one.")
    ] = None,
) -> None:
    """Open the Prefect and MLflow UIs on loopback over what has been run."""
    from flows.server import serve_uis

    workspace, console = _workspace(), _console()
    try:
        serve_uis(workspace.root, prefect_port, mlflow_port, console.print)
    except KeyboardInterrupt:  # the way it is meant to end
        console.print("Both have ended.")


@app.command()
def runtime() -> None:
    """Record the installed library versions as the ones that results belong to."""
    from components import runtime as recorder

    _workspace()
    for name, version in recorder.record().items():
        typer.echo(f"{name} {version}")


@data_app.command()
def pull() -> None:
    """Get the data that data.dvc pins: from the DVC remote, or rebuilt from its public sources."""
    from flows.data.pull import pull as pull_data

    workspace = _workspace()
    pull_data(workspace)
    typer.echo(f"data/ is what data.dvc pins ({workspace.data_hash()}).")


@data_app.command()
def add(
    files: Annotated[list[Path], typer.Argument(help="CSV, TSV, JSON lines or Parquet files, or folders of shards.")],
    unlabelled: Annotated[Path | None, typer.Option(help="A file of texts without labels, for distillation.")] = None,
    base_model: Annotated[str | None, typer.Option(help="A folder with a model in transformers' format.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link instead of copying.")] = False,
) -> None:
    """Copy files into data/, version them with DVC, and show the `data:` section for params.yaml."""
    from flows.data.add import add as add_data
    from flows.data.add import suggest_section

    home = Path.cwd()
    given = [home / path for path in files]
    workspace = _workspace()
    pool = home / unlabelled if unlabelled else None
    model = str(home / base_model) if base_model and (home / base_model).exists() else base_model
    added = add_data(workspace, given, unlabelled=pool, link=link, base_model=model)
    typer.echo(f"data.dvc now pins {workspace.data_hash()}. For params.yaml:\n")
    typer.echo(suggest_section(added, workspace.data / pool.name if pool else None))


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"stillhouse {version('stillhouse')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> Any:
    """Options of every command."""


if __name__ == "__main__":
    main()
