"""`stillhouse commit`: a run's dvc.lock and params.yaml on the branch."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands import common


def commit(
    run: Annotated[
        str | None,
        typer.Argument(help="The MLflow run's id, or its first 6 characters or more; default: the last run."),
    ] = None,
) -> None:
    """Commit the dvc.lock and params.yaml of a run on the branch that is checked out."""
    from flows.repo import revisions

    workspace = common.workspace()
    revision = revisions.find_recorded(workspace, run)
    made = revisions.commit_lock(workspace, revision.run)
    if made is None:
        typer.echo(f"Nothing to commit: the branch has the dvc.lock and params.yaml of run {revision.run}.")
    else:
        typer.echo(f"Committed the dvc.lock and params.yaml of run {revision.run} as {made[:10]}.")
    if others := revisions.left_out(workspace, revision):
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        typer.echo(f"The run was made with other versions of {', '.join(others[:5])}{more} than the branch has.")
        typer.echo(f"See them: git diff HEAD {revision.ref}")
