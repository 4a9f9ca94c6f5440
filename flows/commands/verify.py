"""`stillhouse verify`: run again from a clean clone, and say of each output whether it is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.commands import common

DIFFERENT_CODE = 3
COLOURS = {"equal": "green", "within tolerance": "yellow", "different": "red"}
WORDS = {"equal": "equal bit for bit", "within tolerance": "equal within {tolerance:g}", "different": "different"}
_LONGEST = 100


def verify(
    stages: Annotated[list[str] | None, typer.Argument(help="The stages to run again; none: all.")] = None,
    tolerance: Annotated[
        float, typer.Option(help="Numbers that differ by no more are equal; relative above 1.")
    ] = 1e-6,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the clone where it is.")] = False,
) -> None:
    """Run stages again from a clean clone without any cache; compare their outputs with the recorded ones.

    Exit code 0: all are equal, or within the tolerance; 3: one is different; 2: it could not be verified.
    """
    from flows.runs.display import Display
    from flows.verification.verify import verify as run_again

    workspace = common.workspace()
    console = common.console(stderr=as_json)
    with Display(console) as display:
        found = run_again(workspace, stages or [], tolerance=tolerance, display=display, keep=keep)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show(console, found)
    if found["verdict"] == "different":
        raise typer.Exit(DIFFERENT_CODE)


def _show(console: Console, found: Mapping[str, Any]) -> None:
    for name, stage in found["stages"].items():
        console.print(_stage(name, stage, found["tolerance"]))
        after = ", ".join(stage["inputs_differ"])
        if after:
            console.print(Text(f"    its inputs are different already, after {after}", style="dim"))
    word = WORDS[found["verdict"]].format(tolerance=found["tolerance"])
    console.print(Text.assemble("All in all: ", (word, COLOURS[found["verdict"]]), ". reports/verify.json has it all."))


def _stage(name: str, stage: Mapping[str, Any], tolerance: float) -> Table:
    """The files that aren't equal bit for bit, or how many there are that are."""
    table = Table(title=f"{name} ({stage['seconds']:g} s)", box=None, title_justify="left", header_style="dim")
    for column in ("output", "verdict", "greatest difference", "first difference"):
        table.add_column(column, overflow="fold")
    same = [output for output in stage["outputs"] if output["verdict"] == "equal"]
    if same:
        files = f"{len(same)} file{'s' * (len(same) > 1)}"
        table.add_row(files, Text(WORDS["equal"], style=COLOURS["equal"]), "", "")
    for output in stage["outputs"]:
        if output["verdict"] != "equal":
            table.add_row(*_row(output, tolerance))
    return table


def _row(output: Mapping[str, Any], tolerance: float) -> tuple[Text, Text, Text, Text]:
    verdict, greatest, first = output["verdict"], output["greatest_difference"], output["first_difference"]
    said = f"{first['where']}: recorded {first['recorded']}, now {first['found']}"
    return (
        Text(_printable(output["path"])),
        Text(WORDS[verdict].format(tolerance=tolerance), style=COLOURS[verdict]),
        Text("" if greatest is None else f"{greatest:.3g}"),
        Text(_printable(said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…")),
    )


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
