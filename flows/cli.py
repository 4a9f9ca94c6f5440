"""The `stillhouse` command. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

import signal
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from components.errors import UserError, disk_full
from components.runtime import collect_rarely
from flows.commands import accept, commit, common, data, deploy, gate, local, monitor, run, score, sweep, verify
from flows.runs.failures import StageFailed


class Commands(TyperGroup):
    """Ends every command with a readable message and its exit code, whatever was raised in it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; 0 done, 1 internal error, 2 the user's mistake or a failed gate, 130 interrupted."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            told = str(error) or "what was finished is kept; run again to go on"
            common.console(stderr=True).print(f"[yellow]Interrupted:[/] {escape(told)}.", highlight=False)
            raise typer.Exit(130) from None
        except UserError as error:
            _refuse(error)
        except StageFailed as error:  # it carries the end of the stage's output, which says more than our traceback
            common.console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False)
            raise typer.Exit(1) from None
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
for command in (
    *(run.run, run.plan, run.compare),
    *(sweep.sweep, accept.accept, commit.commit, verify.verify),
    *(gate.promote, gate.rollback, gate.decisions, monitor.monitor),
    *(score.predict, score.score),
    *(deploy.deploy, deploy.worker),
    *(local.ui, local.runtime),
):
    app.command()(command)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    collect_rarely()
    app()


def _interrupt() -> None:
    raise KeyboardInterrupt


def _refuse(error: UserError) -> NoReturn:
    """Show the user's mistake and end with exit code 2."""
    console = common.console(stderr=True)
    console.print(f"[bold red]Error:[/] {escape(error.message)}", highlight=False, soft_wrap=True)
    if error.remedy:
        console.print(f"[bold]To do:[/] {escape(error.remedy)}", highlight=False, soft_wrap=True)
    raise typer.Exit(2)


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
