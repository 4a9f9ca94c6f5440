"""`stillhouse predict` and `stillhouse score`: the model in use, on a few texts or on a file of any size."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from components.errors import UserError
from components.ml.rows.inputs import Input, shown
from flows.commands import common

_MODEL = typer.Option("--model", metavar="VERSION", help="A version or an alias; else the champion, or the candidate.")


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines of standard input.")] = None,
    pair: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of pairs, the second text; of lines after a tab.")
    ] = None,
    model: Annotated[str | None, _MODEL] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line for each text, with all probabilities.")] = False,
) -> None:
    """Label texts with the model in use."""
    lines = [] if texts else _lines()
    if not texts and not lines:
        raise UserError("Expected a text, got none.", 'Give one: stillhouse predict "a text".', "parameters")
    from components.loader import load_params
    from components.ml.statistics.metrics import softmax
    from flows.inference.loading import loaded
    from flows.inference.scoring import check_paired

    workspace = common.workspace()
    with loaded(workspace.root, load_params(workspace.root / "params.yaml"), model) as found:
        given: list[Input] = _pairs(lines, pair) if found.paired and lines else _with(texts or lines, pair)
        check_paired(found, not isinstance(given[0], str))
        probabilities = softmax(found.predict(given)[1])
    answers = [dict(zip(found.labels, map(float, row), strict=True)) for row in probabilities]
    if as_json:
        for text, answer in zip(given, answers, strict=True):
            label = max(answer, key=answer.__getitem__)
            named = {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
            line = {**named, "label": label, "score": answer[label], "probabilities": answer}
            typer.echo(json.dumps(line, ensure_ascii=False))
        return
    console = common.console()
    table = Table("label", "probability", "text", box=None, header_style="dim")
    for text, answer in zip(given, answers, strict=True):
        label = max(answer, key=answer.__getitem__)
        table.add_row(Text(label), f"{answer[label]:.1%}", Text(shown(text), overflow="ellipsis", no_wrap=True))
    console.print(table)
    console.print(Text(found.name, style="dim"))


def _with(texts: list[str], pair: str | None) -> list[Input]:
    return [text if pair is None else (text, pair) for text in texts]


def _pairs(lines: list[str], pair: str | None) -> list[Input]:
    """The two texts of each line, parted by a tab; or each line with ``pair``."""
    if pair is not None:
        return _with(lines, pair)
    for number, line in enumerate(lines, 1):
        if line.count("\t") != 1:
            raise UserError(
                f"Line {number} of standard input: expected two texts with a tab between them.",
                "Put one tab between them, or give the second text of all lines: `--pair TEXT`.",
                "parameters",
            )
    return [(first, second) for first, second in (line.split("\t") for line in lines)]


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
    column: Annotated[str, typer.Option(metavar="NAME", help="The column of the texts.")] = "text",
    pair: Annotated[str | None, typer.Option(metavar="NAME", help="Of pairs, the column of the second texts.")] = None,
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
