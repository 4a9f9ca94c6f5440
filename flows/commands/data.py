"""`stillhouse data`: get, add, compare and version the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands import common

app = typer.Typer(help="Get, add, compare and version the data.", no_args_is_help=True)


@app.command()
def pull() -> None:
    """Get the data that data.dvc pins: from the DVC remote, or rebuilt from its public sources."""
    from flows.data.pull import pull as pull_data

    workspace = common.workspace()
    pull_data(workspace)
    typer.echo(f"data/ is what data.dvc pins ({workspace.data_hash()}).")


@app.command()
def add(
    files: Annotated[
        list[Path],
        typer.Argument(help="CSV, TSV, JSON lines, Parquet, CoNLL or SQuAD JSON files, or folders of shards."),
    ],
    unlabelled: Annotated[Path | None, typer.Option(help="A file of texts without labels, for distillation.")] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="A folder with a model in transformers' format, or the name of one on the Hugging Face hub."),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link instead of copying.")] = False,
    no_validate: Annotated[bool, typer.Option("--no-validate", help="Add without asking the data gate.")] = False,
) -> None:
    """Let the data gate judge the files, copy them into data/, version them, and show the section for params.yaml."""
    from flows.data.add import add as add_data
    from flows.data.add import suggest_section

    home = Path.cwd()
    given = [home / path for path in files]
    workspace = common.workspace()
    pool = home / unlabelled if unlabelled else None
    model = str(home / base_model) if base_model and (home / base_model).exists() else base_model
    if no_validate:
        typer.echo("The data gate was not asked; it judges the data in the next run.")
    added = add_data(
        workspace,
        given,
        unlabelled=pool,
        link=link,
        base_model=model,
        validate=not no_validate,
        report=lambda line: typer.echo(f"gate: {line}"),
    )
    typer.echo(f"data.dvc now pins {workspace.data_hash()}. For params.yaml:\n")
    typer.echo(suggest_section(added, workspace.data / pool.name if pool else None))


@app.command()
def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="A git revision, the hash of a data version, or . for the checkout.")
    ] = "HEAD",
    after: Annotated[str, typer.Argument(metavar="B", help="Likewise.")] = ".",
    examples: Annotated[int, typer.Option(min=0, help="How many rows of each kind are shown for each split.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare two versions of the data: rows added, removed, relabelled and moved, labels and lengths."""
    from flows.data.diff.report import diff as compare
    from flows.data.diff.terminal import show

    found = compare(common.workspace(), before, after, examples=examples)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    show(common.console(), found)
