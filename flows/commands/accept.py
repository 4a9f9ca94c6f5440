"""`stillhouse accept`: keep a result or checkpoint across a code edit."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands import common


def accept(
    stage: Annotated[str, typer.Argument(help="The stage whose code was edited without changing what it computes.")],
) -> None:
    """Keep a stage's result, or else its checkpoint, though its code was edited: you vouch for the edit."""
    from flows.repo.accepting import accept as accept_edits

    workspace, console = common.workspace(), common.console()
    for sentence in accept_edits(workspace, stage):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
