"""Scores files larger than memory: part by part, so that a run that was killed goes on, and ends in the same bytes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.errors import UserError
from components.ml.rows.inputs import PAIR, TEXT
from components.ml.statistics.metrics import softmax
from flows.inference import log
from flows.inference.rows import Rows
from flows.tracking.models import Predict

if TYPE_CHECKING:
    import pyarrow as pa

LABEL, SCORE = "predicted_label", "predicted_score"
PROBABILITY = "probability_"
TABLES_IN_A_PART = 4
Progress = Callable[[int, int], None]
"""Takes the rows that are scored by now, and how many of them a run before had scored."""


@dataclass(frozen=True)
class Model:
    """The model that scores: its name such as ``stillhouse-sentiment/3``, the hash of its content, its labels.

    ``paired``: it reads pairs.
    """

    name: str
    content: str
    labels: list[str]
    predict: Predict
    paired: bool = False


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
    """Write every row with its label and that label's probability to ``target``; gives the number of rows.

    What is done lies in a hidden folder beside ``target`` until all is: parts, each of them written whole or not at
    all. ``target`` appears with the last row.

    Raises:
        UserError: a row can't be read, or a column would be there twice (``data``), the model fails (``model``), or
            another run writes to ``target``.
    """
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
            for count in _score_part(tables, place, f"{key}-{number:06d}", list(rows.texts), model, settings):
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


def check_paired(model: Model, paired: bool) -> None:
    """See to it that a model that reads pairs gets pairs, and no other does.

    Raises:
        UserError: it isn't so (``parameters``).
    """
    if model.paired == paired:
        return
    if model.paired:
        raise UserError(
            f"{model.name} reads pairs of texts; got one text a row.", "Give the second: `--pair`.", "parameters"
        )
    raise UserError(f"{model.name} reads one text a row; got pairs.", "Leave out `--pair`.", "parameters")


def _check_columns(rows: Rows, model: Model, settings: Settings) -> None:
    new = [LABEL, SCORE, *([f"{PROBABILITY}{label}" for label in model.labels] if settings.probabilities else [])]
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
    tables: list[pa.Table], place: Path, name: str, columns: list[str], model: Model, settings: Settings
) -> Iterator[int]:
    """Score a part and write it; gives the number of rows of each table as it is scored."""
    import pyarrow.parquet as pq

    draft, scored = place.with_suffix(".new"), []
    for table in tables:
        scored.append(_scored(table, columns, model, settings))
        yield len(table)
    with pq.ParquetWriter(draft, scored[0].schema) as writer:
        for table in scored:
            writer.write_table(table)
    if settings.log:
        log.append(settings.log, _logged(scored, columns, model, settings.id_column), name)
    draft.replace(place)


def _scored(table: pa.Table, columns: list[str], model: Model, settings: Settings) -> pa.Table:
    """The table with the columns that scoring adds."""
    import pyarrow as pa

    texts = [table[column].to_pylist() for column in columns]
    labels, logits = model.predict(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
    if labels != model.labels:
        raise UserError(f"{model.name} changed its labels while it scored.", "Run again.", "model")
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=-1)
    names = pa.DictionaryArray.from_arrays(pa.array(best.astype(np.int32)), pa.array(labels, pa.string()))
    table = table.append_column(LABEL, names.cast(pa.string()))
    table = table.append_column(SCORE, pa.array(probabilities.max(axis=-1, initial=0.0), pa.float64()))
    if settings.probabilities:
        for index, label in enumerate(labels):
            table = table.append_column(f"{PROBABILITY}{label}", pa.array(probabilities[:, index], pa.float64()))
    return table


def _logged(tables: list[pa.Table], columns: list[str], model: Model, id_column: str | None) -> pa.Table:
    """The rows as the log has them."""
    import pyarrow as pa

    table = pa.concat_tables(tables)
    rows = len(table)
    ids = table[id_column].cast(pa.string()) if id_column else pa.nulls(rows, pa.string())
    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
    return pa.table(
        {
            **{name: table[column] for name, column in zip((TEXT, PAIR), columns, strict=False)},
            "id": ids,
            "label": table[LABEL],
            "score": table[SCORE],
            "model": pa.repeat(model.name, rows),
            "content": pa.repeat(model.content, rows),
            "at": pa.repeat(now, rows),
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
