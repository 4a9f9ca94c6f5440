"""`stillhouse data`: get, add, compare and version the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands import common

app = typer.Typer(help="Get, add and version the data.", no_args_is_help=True)


@app.command()
def pull() -> None:
    """Get the data that data.dvc pins: from the DVC remote, or rebuilt from its public sources."""
    from flows.data.pull import pull as pull_data

    workspace = common.workspace()
    pull_data(workspace)
    typer.echo(f"data/ is what data.dvc pins ({workspace.data_hash()}).")


@app.command()
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
    workspace = common.workspace()
    pool = home / unlabelled if unlabelled else None
    model = str(home / base_model) if base_model and (home / base_model).exists() else base_model
    added = add_data(workspace, given, unlabelled=pool, link=link, base_model=model)
    typer.echo(f"data.dvc now pins {workspace.data_hash()}. For params.yaml:\n")
    typer.echo(suggest_section(added, workspace.data / pool.name if pool else None))
