"""`stillhouse monitor`: whether what a model meets in use still looks like its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flows.commands import common

if TYPE_CHECKING:
    from datetime import datetime


def monitor(
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Rows from then on: 7d, 24h, or a time (UTC); else monitoring.window_days."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels that came later: id or text, and label; Parquet, CSV, TSV, JSONL."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare what was logged of the champion with its training: texts, predictions and, given labels, accuracy.

    Drift is an outcome, not a failure: the exit code is 0.
    """
    from flows.drift import report

    home = Path.cwd()
    found = _found(since, home / labels if labels else None)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    console = common.console()
    colour = "yellow" if found["outcome"] == report.DRIFT else "bold"
    console.print(f"[{colour}]{escape(report.headline(found))}[/]", highlight=False, soft_wrap=True)
    if found["tests"]:
        console.print(_table(found))
    for sentence in report.sentences(found):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.print(f"[dim]{report.REPORT}[/]", highlight=False)


def _found(since: str | None, labels: Path | None) -> dict[str, Any]:
    from datetime import UTC, datetime

    from components.loader import load_params
    from flows.drift import monitor as watching

    workspace, now = common.workspace(), datetime.now(UTC)
    params = load_params(workspace.root / "params.yaml")
    start: datetime | None = watching.moment(since, now) if since else None
    return watching.monitor(workspace, params, watching.champions(workspace, params), start, labels, now)


def _table(found: dict[str, Any]) -> Table:
    from flows.drift import report

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for place, name in enumerate(report.HEADER):
        table.add_column(name, no_wrap=place in (0, 4, 5, 6), overflow="fold")
    for line, test in zip(report.rows(found), found["tests"], strict=True):
        table.add_row(*map(Text, line), style="yellow" if test["drifted"] else None)
    return table
