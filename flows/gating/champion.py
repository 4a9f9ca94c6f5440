"""The champion's predictions on today's test rows: scored once for each champion and test set, then recalled."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.ml.rows.inputs import input_columns, inputs_of
from flows.repo import lockfile
from flows.tracking.models import Predict

ROWS_AT_ONCE = 8192
KEPT = 4
"""How many champions' logits are kept: the one used last, and some to go back to."""
_LABELS = b"stillhouse.labels"
_DRAFT = "new-"
_DAY = 24 * 3600

Load = Callable[[], AbstractContextManager[Predict]]
Progress = Callable[[int, int], None]
"""Takes the rows that are scored and all rows."""


@dataclass(frozen=True)
class Scored:
    """The champion's labels and, if they are today's, the class it predicts for each row, by today's numbers."""

    labels: list[str]
    rows: np.ndarray | None = None
    predictions: np.ndarray | None = None


def score(cache: Path, identity: Sequence[str], test: Path, labels: Sequence[str], load: Load, say: Progress) -> Scored:
    """Score the test rows with the champion, or recall what it said of them; one with other labels scores nothing.

    Args:
        cache: the folder of logits; it may be deleted at any time.
        identity: what tells this champion and these test rows from others.
        test: the folder with the shards of test rows.
        labels: today's labels, by class.
        load: gives the champion.
        say: is told how far it is.
    """
    place = kept(cache, identity)
    if (found := _recall(place, labels)) is not None:
        place.touch()
        return found
    with load() as predict:
        own = predict([])[0]
        if set(own) != set(labels) or len(own) != len(labels):
            return Scored(own)
        _write(place, own, test, predict, say)
    _forget(cache)
    made = _recall(place, labels)
    assert made is not None
    return made


def kept(cache: Path, identity: Sequence[str]) -> Path:
    """Where the logits of ``identity`` are kept: the columns row and logits, by the champion's own classes."""
    return cache / f"{lockfile.digest(list(identity))[:16]}.parquet"


def _recall(path: Path, labels: Sequence[str]) -> Scored | None:
    """What is kept; None where there is nothing, or something damaged."""
    try:
        with pq.ParquetFile(path) as file:
            own: list[str] = json.loads(file.schema_arrow.metadata[_LABELS])
            parts = [_classes(batch) for batch in file.iter_batches(ROWS_AT_ONCE, columns=["row", "logits"])]
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    if not parts or set(own) != set(labels):
        return None
    todays = np.array([list(labels).index(name) for name in own])
    rows, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Scored(own, rows, todays[classes])


def _classes(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the class with the highest logit, by the champion's own numbers."""
    logits = batch["logits"].flatten().to_numpy().reshape(len(batch), -1)
    return batch["row"].to_numpy(), logits.argmax(axis=-1)


def _write(path: Path, labels: Sequence[str], test: Path, predict: Predict, say: Progress) -> None:
    """Score shard by shard; the file gets its name when it is whole. Two runs may be at it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    total, done = sum(pq.read_metadata(shard).num_rows for shard in _shards(test)), 0
    metadata = {_LABELS: json.dumps(list(labels), ensure_ascii=False).encode()}
    schema = pa.schema([("row", pa.int64()), ("logits", pa.list_(pa.float32(), len(labels)))], metadata)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_DRAFT) as folder:
        draft = Path(folder) / path.name
        with pq.ParquetWriter(draft, schema) as writer:
            for batch in _batches(test):
                logits = np.ascontiguousarray(predict(inputs_of(batch))[1], dtype=np.float32)
                values = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
                writer.write_table(pa.Table.from_arrays([batch["row"], values], names=schema.names).cast(schema))
                done += len(batch)
                say(done, total)
        draft.replace(path)


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
