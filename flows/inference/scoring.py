"""Scores files larger than memory: part by part, so that a run that was killed goes on, and ends in the same bytes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import UserError
from components.ml.rows.inputs import PAIR, TEXT, Input, shown
from components.ml.tasks import serving
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task
from flows.inference import log
from flows.inference.rows import Rows
from flows.tracking.predictor import Predict

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTED, PROBABILITY = "predicted_", "probability_"
LABEL, SCORE = f"{PREDICTED}label", f"{PREDICTED}score"
TABLES_IN_A_PART = 4
Progress = Callable[[int, int], None]
"""Takes the rows that are scored by now, and how many of them a run before had scored."""


@dataclass(frozen=True)
class Model:
    """The model that scores: its name such as ``stillhouse-sentiment/3``, the hash of its content, its labels.

    ``paired``: it reads two texts of a row; ``tokenizer`` gives the one that answers are decoded with, where the task
    needs it.
    """

    name: str
    content: str
    labels: list[str]
    predict: Predict
    paired: bool = False
    task: Task = TASKS[DEFAULT]
    tokenizer: Callable[[], Any] = lambda: None

    def said(self, inputs: Sequence[Input]) -> Said:
        """What it says of rows.

        Raises:
            UserError: it fails (``model``).
        """
        if not inputs:
            return Said([], [], [])
        labels, found = self.predict(inputs)
        if labels != self.labels:
            raise UserError(f"{self.name} changed its labels while it scored.", "Run again.", "model")
        logits = [np.reshape(one, (-1, len(labels))) for one in found]
        predictions = self.task.decode(inputs, logits, labels, self.tokenizer())
        return Said(logits, predictions, self.task.answers(inputs, predictions, logits, labels))

    def answer_keys(self) -> list[str]:
        """What answers hold that has a column of its own."""
        return serving.answer_keys(self.task, self.labels, self.tokenizer(), self.paired)

    def probabilities(self, said: Said) -> np.ndarray:
        """Of each label, of shape (rows, labels); see `serving.has_probabilities`."""
        return serving.probabilities(self.task, said.logits, len(self.labels))


@dataclass(frozen=True)
class Said:
    """What a model says of rows: each one's logits of shape (positions, labels), its prediction, and the answer."""

    logits: list[np.ndarray]
    predictions: list[Any]
    answers: list[dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What is written beside the rows' own columns, and whether it is logged too.

    ``probabilities`` adds a column for each label; ``log`` names the project whose log takes the rows (None: none),
    ``id_column`` the column with the rows' ids there.
    """

    probabilities: bool = False
    log: Path | None = None
    id_column: str | None = None


def score_file(rows: Rows, target: Path, model: Model, settings: Settings, say: Progress) -> int:
    """Write every row with what the model answers to ``target``, such as a label and its probability; gives the number
    of rows.

    What is done lies in a hidden folder beside ``target`` until all is: parts, each of them written whole or not at
    all. ``target`` appears with the last row.

    Raises:
        UserError: a row can't be read, or a column would be there twice (``data``), the model fails (``model``), or
            another run writes to ``target``.
    """
    rows = rows.read_by(model.task)
    check_paired(model, rows.pair is not None)
    _check_columns(rows, model, settings)
    told = [rows.identity(), model.name, model.content, settings.probabilities, bool(settings.log), settings.id_column]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    folder = target.parent / f".{target.name}.{key}.parts"
    for other in target.parent.glob(f".{target.name}.*.parts"):
        if other != folder:
            shutil.rmtree(other)  # of other rows, or another model
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, target):
        done = before = 0
        for number, tables in enumerate(_parts(rows)):
            place = folder / f"{number:06d}.parquet"
            if place.exists():
                count = sum(len(table) for table in tables)
                done, before = done + count, before + count
                say(done, before)
                continue
            for count in _score_part(tables, place, f"{key}-{number:06d}", rows, model, settings):
                done += count
                say(done, before)
        if not done:
            folder.rmdir()
            raise UserError(f"{rows.path} holds no rows.", "Give a file with rows.", "data")
        _join(folder, target)
    return done


@contextlib.contextmanager
def _alone(folder: Path, target: Path) -> Iterator[None]:
    """Nobody else works in the folder meanwhile; the lock ends with the process, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"Another run scores {target} right now.", "Wait for it, or name another file.") from None
    finally:
        os.close(descriptor)


def check_target(source: Path, target: Path, overwrite: bool) -> None:
    """See to it that ``target`` can be written.

    Raises:
        UserError: it is there already, what is scored or in its folder, no Parquet file by its name, or its folder is
            missing (``parameters``).
    """
    if target.suffix != ".parquet":
        raise UserError(f"Expected a Parquet file to write, got {target}.", "Name it NAME.parquet.", "parameters")
    if not target.parent.is_dir():
        raise UserError(f"The folder {target.parent} does not exist.", "Make it, or name another.", "parameters")
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise UserError(f"{target} is what is scored, or would stand among it.", "Name a file elsewhere.", "parameters")
    if target.is_dir() or (target.exists() and not overwrite):
        raise UserError(f"{target} is there already.", "Name another file, or add --overwrite.", "parameters")


def check_paired(model: Model, paired: bool, option: str = "--pair") -> None:
    """See to it that a model that reads pairs gets pairs, and no other does.

    Raises:
        UserError: it isn't so (``parameters``).
    """
    if model.paired == paired:
        return
    if model.paired:
        raise UserError(
            f"{model.name} reads pairs of texts; got one text a row.", f"Give the second: `{option}`.", "parameters"
        )
    raise UserError(f"{model.name} reads one text a row; got pairs.", f"Leave out `{option}`.", "parameters")


def _check_columns(rows: Rows, model: Model, settings: Settings) -> None:
    if settings.probabilities and not serving.has_probabilities(model.task):
        raise UserError(
            f"{model.name} has no probabilities of labels: it does {model.task.name}.",
            "Leave out `--probabilities`.",
            "parameters",
        )
    new = [f"{PREDICTED}{key}" for key in model.answer_keys()]
    new += [f"{PROBABILITY}{label}" for label in model.labels] if settings.probabilities else []
    twice = [name for name in new if name in rows.columns]
    if twice:
        raise UserError(
            f"{rows.path} has columns that scoring adds: {', '.join(twice)}.", "Rename them, or leave them out.", "data"
        )
    if settings.log and settings.id_column and settings.id_column not in rows.plain_columns:
        raise UserError(
            f"{rows.path}: expected a column '{settings.id_column}' of texts or numbers for the log's ids; such "
            f"columns are {', '.join(rows.plain_columns[:10])}.",
            "Name another: `--id NAME`.",
            "data",
        )


def _parts(rows: Rows) -> Iterator[list[pa.Table]]:
    """The tables of each part; read anew, a part holds the same rows."""
    part: list[pa.Table] = []
    for table in rows.tables():
        part.append(table)
        if len(part) == TABLES_IN_A_PART:
            yield part
            part = []
    if part:
        yield part


def _score_part(
    tables: list[pa.Table], place: Path, name: str, rows: Rows, model: Model, settings: Settings
) -> Iterator[int]:
    """Score a part and write it; gives the number of rows of each table as it is scored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draft, scored, logged, keys = place.with_suffix(".new"), [], [], model.answer_keys()
    for table in tables:
        inputs = rows.inputs(table)
        said = model.said(inputs)
        scored.append(_scored(table, said, keys, model, settings))
        if settings.log:
            ids = table[settings.id_column].cast(pa.string()) if settings.id_column else None
            logged.append(_logged(inputs, ids, said, model))
        yield len(table)
    with pq.ParquetWriter(draft, scored[0].schema) as writer:
        for table in scored:
            writer.write_table(table)
    if settings.log:
        table = pa.concat_tables(logged)
        now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
        log.append(settings.log, table.append_column("at", pa.repeat(now, len(table))), name)
    draft.replace(place)


def _scored(table: pa.Table, said: Said, keys: Sequence[str], model: Model, settings: Settings) -> pa.Table:
    """The table with the columns that scoring adds."""
    import pyarrow as pa

    for key in keys:
        values = pa.array([answer[key] for answer in said.answers], _type(serving.ANSWERS.get(key, str)))
        table = table.append_column(f"{PREDICTED}{key}", values)
    if settings.probabilities:
        for label, column in zip(model.labels, model.probabilities(said).T, strict=True):
            table = table.append_column(f"{PROBABILITY}{label}", pa.array(column, pa.float64()))
    return table


def _type(told: Any) -> pa.DataType:
    """One of ``serving.ANSWERS`` as Arrow has it."""
    import pyarrow as pa

    if isinstance(told, list):
        return pa.list_(_type(told[0]))
    if isinstance(told, Mapping):
        return pa.struct([(name, _type(kind)) for name, kind in told.items()])
    return {str: pa.string(), float: pa.float64(), int: pa.int64()}[told]


def _logged(inputs: Sequence[Input], ids: pa.ChunkedArray | None, said: Said, model: Model) -> pa.Table:
    """The rows as the log has them, but for the time: words joined, answers as people read them, confidence 1 where the
    task has none. Of what isn't one class of a row, monitoring looks at the texts alone."""
    import pyarrow as pa

    rows, sure = len(inputs), model.task.confidence(said.logits) if inputs else None
    text = pa.string()
    pairs = {PAIR: pa.array([each[1] for each in inputs], text)} if model.paired else {}
    return pa.table(
        {
            TEXT: pa.array([each[0] if isinstance(each, tuple) else shown(each) for each in inputs], text),
            **pairs,
            "id": pa.nulls(rows, text) if ids is None else ids,
            "label": pa.array([model.task.said(one, model.labels) for one in said.predictions], text),
            "score": pa.array(np.ones(rows) if sure is None else sure, pa.float64()),
            "model": pa.repeat(model.name, rows),
            "content": pa.repeat(model.content, rows),
        }
    )


def _join(folder: Path, target: Path) -> None:
    """One file of all parts, table by table; then the parts go."""
    import pyarrow.parquet as pq

    parts = sorted(folder.glob("*.parquet"))
    draft = folder / "whole.new"
    with pq.ParquetWriter(draft, pq.read_schema(parts[0])) as writer:
        for part in parts:
            with pq.ParquetFile(part) as opened:
                for group in range(opened.num_row_groups):
                    writer.write_table(opened.read_row_group(group))
    draft.replace(target)
    shutil.rmtree(folder)
