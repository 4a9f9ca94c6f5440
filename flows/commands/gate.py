"""`stillhouse promote`, `rollback` and `decisions`: the champion by hand, and what was decided of each version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.commands import common

if TYPE_CHECKING:
    from components.ml.tasks.task import Metric
    from flows.tracking.champions import Champions, Version

Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the decision.")]
_Move = Callable[["Champions"], tuple["Version | None", "Version"]]


def promote(
    version: Annotated[str | None, typer.Argument(help="The version's number; none: the candidate.")] = None,
    reason: Reason = None,
) -> None:
    """Make a version the champion by hand, whatever the gate said; the champion before it becomes `previous`."""
    from flows.gating import by_hand

    _move(lambda champions: by_hand.promote(champions, version, reason), reason or "Promoted by hand.")


def rollback(reason: Reason = None) -> None:
    """Make the previous champion the champion again; the gate won't promote the one that was taken back."""
    from flows.gating import by_hand

    _move(lambda champions: by_hand.roll_back(champions, reason), reason or "Rolled back by hand.")


def decisions(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """What was decided of each version of the registered model, the newest first."""
    from flows.tracking.headline import headline_of

    champions = _champions()
    versions = champions.versions()
    found = [_told(version) for version in versions]
    if as_json:
        typer.echo(json.dumps({"registered_model": champions.name, "versions": found}, ensure_ascii=False))
    elif not found:
        typer.echo(f"'{champions.name}' has no version yet: `stillhouse run`.")
    else:
        metrics = [headline_of(version.decision or {}) for version in versions]
        common.console().print(_table(champions.name, found, metrics))


def _champions() -> Champions:
    from components.loader import load_params
    from flows.tracking.champions import Champions
    from flows.tracking.tracker import Tracker

    workspace = common.workspace()
    publish = load_params(workspace.root / "params.yaml").publish
    return Champions(Tracker(workspace.root, publish.experiment), publish.registered_model)


def _move(move: _Move, why: str) -> None:
    """Move the alias, say so, and tell those who are to be told of a new champion."""
    champions = _champions()
    old, new = move(champions)
    if old and old.number == new.number:
        typer.echo(f"Version {new.number} of {champions.name} is the champion already.")
        return
    before = f", in place of version {old.number}" if old else ""
    typer.echo(f"Version {new.number} of {champions.name} is the champion{before}.")
    _notify(champions, old, new, why)


def _notify(champions: Champions, old: Version | None, new: Version, why: str) -> None:
    """Prefect's blocks need its API, which takes seconds to start, so only where someone is to be told."""
    from flows import notifications

    root = champions.tracker.root
    if not notifications.blocks(root, "promotion"):
        return
    from flows.server import prefect_api

    page = champions.tracker.url(new.run) if new.run else ""
    decision = {"challenger": {"version": new.number}, "reasons": [why]}
    with prefect_api(root):
        for warning in notifications.promotion(root, champions.name, old.number if old else None, decision, page):
            typer.echo(warning, err=True)


def _told(version: Version) -> dict[str, Any]:
    """A version and its newest decision."""
    decision = version.decision or {}
    keys = ("promoted", "outcome", "time", "difference", "ci", "reasons")
    return {"version": version.number, "aliases": list(version.aliases)} | {key: decision.get(key) for key in keys}


def _table(name: str, found: list[dict[str, Any]], metrics: list[Metric]) -> Table:
    table = Table(title=name, box=None, title_justify="left", header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("version", "when (UTC)", "promoted", "difference"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold")
    for told, metric in zip(found, metrics, strict=True):
        aliases = f" ({', '.join(told['aliases'])})" if told["aliases"] else ""
        when = (told["time"] or "")[:16].replace("T", " ")
        why = (told["reasons"] or ["not decided yet"])[0]
        table.add_row(*map(Text, (told["version"] + aliases, when, _promoted(told), _difference(told, metric), why)))
    return table


def _promoted(told: Mapping[str, Any]) -> str:
    return "-" if told["promoted"] is None else "yes" if told["promoted"] else "no"


def _difference(told: Mapping[str, Any], metric: Metric) -> str:
    """In points of accuracy or whatever was compared, with its interval."""
    from flows.tracking.headline import change

    if told["difference"] is None:
        return "-"
    low, high = told["ci"]
    return f"{change(metric, told['difference'])} ({change(metric, low)} to {change(metric, high)})"
