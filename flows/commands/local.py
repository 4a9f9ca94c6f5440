"""`stillhouse ui` and `runtime`: what belongs to this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands import common


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

    workspace, console = common.workspace(), common.console()
    try:
        serve_uis(workspace.root, prefect_port, mlflow_port, console.print)
    except KeyboardInterrupt:  # the way it is meant to end
        console.print("Both have ended.")


def runtime() -> None:
    """Record the installed library versions as the ones that results belong to."""
    from components import runtime as recorder

    common.workspace()
    for name, version in recorder.record().items():
        typer.echo(f"{name} {version}")
