"""The champion's predictions on today's test rows: scored once for each champion and test set, then recalled.

What is kept are logits: predictions are decoded from them anew, so that deleting the cache changes no result.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.ml.rows.inputs import Input, input_columns, inputs_of
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task
from flows.repo import lockfile

ROWS_AT_ONCE = 8192
KEPT = 4
"""How many champions' logits are kept: the one used last, and some to go back to."""
_LABELS = b"stillhouse.labels"
_DRAFT = "new-"
_DAY = 24 * 3600

Predict = Callable[[Sequence[Input]], tuple[list[str], np.ndarray | Sequence[np.ndarray]]]
"""From inputs to the labels and the rows' logits: one array of shape (rows, labels), or one of shape
(positions, labels) for each row."""
Load = Callable[[], AbstractContextManager[Predict]]
Progress = Callable[[int, int], None]
"""Takes the rows that are scored and all rows."""


@dataclass(frozen=True)
class Scored:
    """The champion's labels and, if they are today's, what it predicts for each row, by today's numbers: classes of
    shape (rows,) where a row has one, else a list of predictions."""

    labels: list[str]
    rows: np.ndarray | None = None
    predictions: Any = None


class _Damaged(Exception):
    """What is kept can't be read."""


def score(
    cache: Path,
    identity: Sequence[str],
    test: Path,
    labels: Sequence[str],
    load: Load,
    say: Progress,
    task: Task = TASKS[DEFAULT],
    tokenizer: Callable[[], Any] = lambda: None,
) -> Scored:
    """Score the test rows with the champion, or recall what it said of them; one with other labels scores nothing.

    Args:
        cache: the folder of logits; it may be deleted at any time.
        identity: what tells this champion and these test rows from others.
        test: the folder with the shards of test rows.
        labels: today's labels, by class.
        load: gives the champion.
        say: is told how far it is.
        task: what the models do.
        tokenizer: gives the champion's, with which its predictions are decoded where the task needs it.
    """
    place = kept(cache, identity)
    if (found := _recall(place, labels, test, task, tokenizer)) is not None:
        place.touch()
        return found
    with load() as predict:
        own = predict([])[0]
        if set(own) != set(labels) or len(own) != len(labels):
            return Scored(own)
        _write(place, own, test, predict, say, task)
    _forget(cache)
    made = _recall(place, labels, test, task, tokenizer)
    assert made is not None
    return made


def kept(cache: Path, identity: Sequence[str]) -> Path:
    """Where the logits of ``identity`` are kept: the columns row and logits, by the champion's own classes."""
    return cache / f"{lockfile.digest(list(identity))[:16]}.parquet"


def _recall(path: Path, labels: Sequence[str], test: Path, task: Task, tokenizer: Callable[[], Any]) -> Scored | None:
    """What is kept; None where there is nothing, or something damaged."""
    try:
        own = _labels(path)
        if set(own) != set(labels):
            return None
        if task.classes_per_row:
            parts = [_classes(batch) for batch in _kept_batches(path)]
            todays = np.array([list(labels).index(name) for name in own])
            if not parts:
                return None
            rows, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
            return Scored(own, rows, todays[classes])
        return _decoded(path, own, labels, test, task, tokenizer())
    except _Damaged:
        return None


def _labels(path: Path) -> list[str]:
    try:
        own: list[str] = json.loads(pq.read_schema(path).metadata[_LABELS])
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise _Damaged from error
    return own


def _kept_batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(ROWS_AT_ONCE, columns=["row", "logits"])
    except (OSError, pa.ArrowException) as error:
        raise _Damaged from error


def _decoded(
    path: Path, own: Sequence[str], labels: Sequence[str], test: Path, task: Task, tokenizer: Any
) -> Scored | None:
    """Predictions from the logits that are kept, put in the order of today's labels, and from the rows' inputs."""
    order = [list(own).index(name) for name in labels]
    inputs = (given for batch in _batches(test) for given in inputs_of(batch))
    rows: list[np.ndarray] = []
    predictions: list[Any] = []
    for batch in _kept_batches(path):
        given = list(itertools.islice(inputs, len(batch)))
        if len(given) < len(batch):
            return None
        rows.append(batch["row"].to_numpy())
        predictions += task.decode(given, _positions(batch["logits"], order), list(labels), tokenizer)
    return Scored(list(own), np.concatenate(rows), predictions) if rows else None


def _positions(logits: pa.ListArray, order: Sequence[int]) -> list[np.ndarray]:
    """Each row's logits, of shape (positions, labels)."""
    ends = np.cumsum(pc.list_value_length(logits).to_numpy(zero_copy_only=False))[:-1]
    flat = logits.flatten().to_numpy(zero_copy_only=False)
    return [one.reshape(-1, len(order))[:, order] for one in np.split(flat, ends)]


def _classes(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the class with the highest logit, by the champion's own numbers."""
    logits = batch["logits"].flatten().to_numpy().reshape(len(batch), -1)
    return batch["row"].to_numpy(), logits.argmax(axis=-1)


def _write(path: Path, labels: Sequence[str], test: Path, predict: Predict, say: Progress, task: Task) -> None:
    """Score shard by shard; the file gets its name when it is whole. Two runs may be at it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    total, done = sum(pq.read_metadata(shard).num_rows for shard in _shards(test)), 0
    metadata = {_LABELS: json.dumps(list(labels), ensure_ascii=False).encode()}
    size = len(labels) if task.classes_per_row else -1
    schema = pa.schema([("row", pa.int64()), ("logits", pa.list_(pa.float32(), size))], metadata)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_DRAFT) as folder:
        draft = Path(folder) / path.name
        with pq.ParquetWriter(draft, schema) as writer:
            for batch in _batches(test):
                values = _lists(predict(inputs_of(batch))[1])
                writer.write_table(pa.Table.from_arrays([batch["row"], values], names=schema.names).cast(schema))
                done += len(batch)
                say(done, total)
        draft.replace(path)


def _lists(logits: np.ndarray | Sequence[np.ndarray]) -> pa.ListArray:
    """Each row's logits one after the other, whatever its number of positions."""
    parts = [np.asarray(one, dtype=np.float32).reshape(-1) for one in logits]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([*parts, np.zeros(0, np.float32)])))


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _batches(folder: Path) -> Iterator[pa.RecordBatch]:
    for shard in _shards(folder):
        with pq.ParquetFile(shard) as file:
            yield from file.iter_batches(ROWS_AT_ONCE, columns=["row", *input_columns(folder)])


def _forget(cache: Path) -> None:
    """Remove all but the logits that were used last, and what kills left behind a day ago."""
    newest = sorted(cache.glob("*.parquet"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest[KEPT:]:
        with contextlib.suppress(OSError):  # another run may have removed it
            path.unlink()
    for folder in cache.glob(f"{_DRAFT}*"):
        if time.time() - folder.stat().st_mtime > _DAY:
            shutil.rmtree(folder, ignore_errors=True)
