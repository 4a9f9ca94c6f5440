"""`stillhouse predict` and `stillhouse score`: the model in use, on a few texts or on a file of any size."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from components.errors import UserError
from components.ml.rows.inputs import Input, shown
from flows.commands import common

if TYPE_CHECKING:
    from flows.inference.scoring import Model

_MODEL = typer.Option("--model", metavar="VERSION", help="A version or an alias; else the champion, or the candidate.")


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or questions; without any, lines of standard input.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of pairs, the second text; of lines after a tab.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of questions, where the answer is; of lines after a tab.")
    ] = None,
    model: Annotated[str | None, _MODEL] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line for each text, with all probabilities.")] = False,
) -> None:
    """Label texts with the model in use, or answer questions, or whatever it does."""
    lines = [] if texts else _lines()
    if not texts and not lines:
        raise UserError("Expected a text, got none.", 'Give one: stillhouse predict "a text".', "parameters")
    from components.loader import load_params
    from flows.inference.loading import loaded

    workspace = common.workspace()
    with loaded(workspace.root, load_params(workspace.root / "params.yaml"), model) as found:
        given = _given(found, texts or [], lines, pair, context)
        said = found.said(given)
        told: list[dict[str, Any]] = said.answers
        if found.task.classes_per_row:
            shares = [dict(zip(found.labels, map(float, row), strict=True)) for row in found.probabilities(said)]
            told = [{**one, "probabilities": share} for one, share in zip(told, shares, strict=True)]
    if as_json:
        for each, one in zip(given, told, strict=True):
            typer.echo(json.dumps({**_named(found, each), **one}, ensure_ascii=False))
        return
    console = common.console()
    console.print(_by_label(given, told) if found.task.classes_per_row else _answered(given, told))
    console.print(Text(found.name, style="dim"))


def _by_label(given: Sequence[Input], told: Sequence[dict[str, Any]]) -> Table:
    table = Table("label", "probability", "text", box=None, header_style="dim")
    for each, one in zip(given, told, strict=True):
        table.add_row(Text(one["label"]), f"{one['score']:.1%}", _shown_text(each))
    return table


def _answered(given: Sequence[Input], told: Sequence[dict[str, Any]]) -> Table:
    table = Table(next(iter(told[0])), "text", box=None, header_style="dim")
    for each, one in zip(given, told, strict=True):
        table.add_row(Text(_readable(one)), _shown_text(each))
    return table


def _shown_text(given: Input) -> Text:
    return Text(shown(given), overflow="ellipsis", no_wrap=True)


def _readable(told: dict[str, Any]) -> str:
    """An answer in a few words; entities line by line."""
    if "entities" in told:
        lines = [
            f"{one['type']}: {one['text']} [{one['start']}-{one['end']}] {one['score']:.1%}" for one in told["entities"]
        ]
        return "\n".join(lines) or "(none)"
    if "labels" in told:
        return ", ".join(f"{label} {told['scores'][label]:.1%}" for label in told["labels"]) or "(none)"
    if "answer" in told:
        place = f" [{told['start']}-{told['end']}]" if told["start"] >= 0 else ""
        return f"{told['answer'] or '(no answer)'}{place} {told['score']:.1%}"
    return ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in told.values())


def _named(found: Model, given: Input) -> dict[str, Any]:
    """A row's input by the names that its task has for it."""
    from components.ml.tasks.serving import usual_form

    if isinstance(given, tuple):
        return dict(zip(usual_form(found.task, paired=True), given, strict=True))
    return {"text": given}


def _given(found: Model, texts: list[str], lines: list[str], pair: str | None, context: str | None) -> list[Input]:
    """What the model is to read.

    Raises:
        UserError: a second text is missing or too many, or a text isn't what the task reads (``parameters``).
    """
    from components.ml.rows.inputs import PAIR
    from components.ml.tasks import serving
    from flows.inference.scoring import check_paired

    asks = "context" in found.task.columns
    if (pair if asks else context) is not None:
        wrong, right = ("--pair", "--context") if asks else ("--context", "--pair")
        raise UserError(
            f"{found.name} does {found.task.name}, which has no {wrong}.",
            f"Name the context of questions with `--context`, the second text of pairs with `--pair`; here: {right}."
            if found.paired
            else f"Leave out `{wrong}`.",
            "parameters",
        )
    option, second = ("--context", context) if asks else ("--pair", pair)
    given = _pairs(lines, second, option) if found.paired and lines else _with(texts or lines, second)
    check_paired(found, isinstance(given[0], tuple), option)
    form = serving.usual_form(found.task, PAIR in found.task.optional and found.paired)
    columns = zip(*given, strict=True) if found.paired else [given]
    try:
        return serving.read(found.task, dict(zip(form, map(list, columns), strict=True)))
    except serving.Refused as refusal:
        raise UserError(
            f"Text {refusal.number + 1} is {refusal.found}; expected {refusal.expected}.", "Mend it.", "parameters"
        ) from None


def _with(texts: list[str], second: str | None) -> list[Input]:
    return [text if second is None else (text, second) for text in texts]


def _pairs(lines: list[str], second: str | None, option: str) -> list[Input]:
    """The two texts of each line, parted by a tab; or each line with ``second``."""
    if second is not None:
        return _with(lines, second)
    for number, line in enumerate(lines, 1):
        if line.count("\t") != 1:
            raise UserError(
                f"Line {number} of standard input: expected two texts with a tab between them.",
                f"Put one tab between them, or give the second text of all lines: `{option} TEXT`.",
                "parameters",
            )
    return [(first, other) for first, other in (line.split("\t") for line in lines)]


def _lines() -> list[str]:
    """The lines of standard input, in UTF-8 whatever the terminal's language."""
    lines = sys.stdin.buffer.read().splitlines()
    try:
        return [line.decode("utf-8") for line in lines]
    except UnicodeDecodeError as error:
        number = lines.index(error.object) + 1
        raise UserError(
            f"Line {number} of standard input is not UTF-8.", "Convert it: `iconv -f ENCODING -t UTF-8`.", "parameters"
        ) from None


def score(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file or a folder: Parquet, CSV, TSV, JSON lines.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The Parquet file to write.")],
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column of the texts, words or questions; else text, tokens, question."),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of pairs, the column of the second texts; of questions else context."),
    ] = None,
    model: Annotated[str | None, _MODEL] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="A column for each label as well.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Log the rows for `stillhouse monitor`: texts, labels.")] = False,
    id_column: Annotated[str | None, typer.Option("--id", metavar="NAME", help="The log's ids: a column.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="OUT may be there already.")] = False,
) -> None:
    """Label every row of a file with the model in use.

    The rows' own columns are kept, in order. Memory doesn't grow with the file; killed, it goes on when it is called
    again.
    """
    from components.loader import load_params
    from flows.inference import scoring
    from flows.inference.loading import loaded
    from flows.inference.rows import Rows

    here = Path.cwd()
    source, target = here / source, here / target
    scoring.check_target(source, target, overwrite)
    rows = Rows(source, column, pair)
    workspace = common.workspace()
    settings = scoring.Settings(probabilities, workspace.root if log else None, id_column)
    started = time.monotonic()
    with (
        loaded(workspace.root, load_params(workspace.root / "params.yaml"), model) as found,
        _Shown(rows.count()) as shown,
    ):
        count = scoring.score_file(rows, target, found, settings, shown.say)
    seconds = time.monotonic() - started
    new = count - shown.before
    resumed = f", {shown.before:,} of them by a run before" if shown.before else ""
    common.console().print(
        Text(f"{count:,} rows labelled by {found.name}{resumed}: {target}; {new / seconds:,.0f} rows a second")
    )


class _Shown:
    """How far scoring is: a bar on a terminal, else a line every ten seconds at most."""

    def __init__(self, total: int | None) -> None:
        self.console, self.total, self.before = common.console(stderr=True), total, 0
        self._told = self._started = time.monotonic()
        columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[rate]}"), console=self.console, transient=True)
        self._task = self._bar.add_task("scoring", total=total, rate="")

    def __enter__(self) -> _Shown:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, done: int, before: int) -> None:
        """Show it."""
        now, self.before = time.monotonic(), before
        rate = f"{(done - before) / max(now - self._started, 1e-9):,.0f} rows/s"
        self._bar.update(self._task, completed=done, rate=rate)
        if not self.console.is_terminal and now - self._told >= 10:
            self._told = now
            self.console.print(Text(f"  {done:,}{f' of {self.total:,}' if self.total else ''} rows, {rate}"))
