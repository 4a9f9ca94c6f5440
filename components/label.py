"""What students learn from, computed once: the logits of teachers or of given judgements, and how sure they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import AutoConfig, AutoTokenizer

from components.errors import UserError
from components.ml.models.device import use_device
from components.ml.models.folders import loading
from components.ml.models.task_models import task_of
from components.ml.rows.inputs import Input, input_columns, inputs_of
from components.ml.rows.tokenised import read_batches, read_shard
from components.ml.tasks.task import Task
from components.ml.teaching.calibration import UNCALIBRATED, Calibration, calibrate
from components.ml.teaching.judgements import look_up
from components.ml.teaching.teachers import RowLogits, Scoring, Teacher, average
from components.params.data import CUT, Windows
from components.params.stages import Label, Runtime

TRAINED_HERE = "teacher"
ENOUGH_JUDGEMENTS = 50
"""Fewer judged validation rows than this calibrate nothing."""
_CHUNK = 1 << 20
_SCHEMA = pa.schema([("row", pa.int64()), ("logits", pa.list_(pa.float32())), ("confidence", pa.float32())])


def run(
    *,
    train: Path,
    unlabelled: Path,
    validation: Path,
    judgements: Path,
    teacher: Path,
    folders: Path,
    runtime: Runtime,
    max_length: int,
    models: Mapping[str, str],
    settings: Label,
    logit_store: Path,
    output: Path,
    windows: Windows = CUT,
) -> None:
    """Write ``train/`` and ``unlabelled/``, shards in the order of the rows, and ``calibration.json``.

    The shards have ``row``, ``logits`` (null where nothing is known of a row) and ``confidence``, the largest
    probability at the temperature of ``calibration.json`` (null likewise).
    ``folders`` tells what the folders of ``models`` hold: an input so that the stage runs again when that changes.
    ``logit_store`` saves time and may be deleted at any moment.

    Raises:
        UserError: a teacher can't be used, or no row was judged.
    """
    use_device(runtime.device, runtime.threads)
    splits = (train, unlabelled, validation)
    config = AutoConfig.from_pretrained(teacher, **loading())  # the teacher trained here has the data's labels in order
    task, labels = task_of(config), [str(config.id2label[index]) for index in sorted(config.id2label)]
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=output) as scratch:
        logits = _blank(Path(scratch) / "logits", _positions(task, teacher, splits), len(labels))
        if settings.source == "judgements":
            look_up(judgements, lambda: _inputs(splits), logits.values, Path(scratch))
            _check_coverage(logits, splits)
        else:
            scoring = Scoring(task, labels, runtime, windows.reading(max_length), settings.batch_size, logit_store)
            average(_teachers(teacher, models, settings), lambda: _inputs(splits), logits, scoring)
        calibration = _calibrated(task, logits, sum(map(_count, splits[:2])), validation, settings)
        first = 0
        for split in (train, unlabelled):
            _write(split, task, logits, first, calibration.temperature, output / split.name)
            first += _count(split)
    calibration.save(output / "calibration.json")


def _positions(task: Task, teacher: Path, splits: Sequence[Path]) -> np.ndarray:
    """How many positions each row has, int64 of shape (rows,)."""
    tokenizer = AutoTokenizer.from_pretrained(teacher, local_files_only=True)
    counts = [np.array(task.positions(part, tokenizer), dtype=np.int64) for _, part in _inputs(splits)]
    return np.concatenate([np.zeros(0, np.int64), *counts])


def _teachers(teacher: Path, models: Mapping[str, str], settings: Label) -> list[Teacher]:
    return [
        Teacher(name, teacher, weight, "teacher")
        if name == TRAINED_HERE
        else Teacher(name, Path(models[name]), weight, f"data.models.{name}")
        for name, weight in settings.teachers.items()
    ]


def _count(split: Path) -> int:
    return sum(pq.read_metadata(shard).num_rows for shard in split.glob("*.parquet"))


def _inputs(splits: Sequence[Path]) -> Iterator[tuple[int, list[Input]]]:
    """All rows of the splits, one after the other, some at a time, with the place of the first of them."""
    first = 0
    for split in splits:
        for batch in read_batches(split, input_columns(split)):
            yield first, inputs_of(batch)
            first += batch.num_rows


def _blank(path: Path, positions: np.ndarray, classes: int) -> RowLogits:
    """Zeros on disk for rows with so many positions."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(positions)])
    size = max(int(starts[-1]), 1) * classes * 8  # an empty file can't be mapped
    with path.open("wb") as file:  # written in full: a mapped file that finds the disk full kills the process
        for start in range(0, size, _CHUNK):
            file.write(bytes(min(_CHUNK, size - start)))
    shape = (max(int(starts[-1]), 1), classes)
    return RowLogits(np.asarray(np.memmap(path, np.float64, "r+", shape=shape)[: starts[-1]]), starts)


def _known(logits: np.ndarray) -> np.ndarray:
    return np.asarray(~np.isnan(logits[:, 0]))


def _check_coverage(logits: RowLogits, splits: Sequence[Path]) -> None:
    """Say how many rows were judged.

    Raises:
        UserError: none that a student could learn from.
    """
    parts = np.split(logits.values, np.cumsum([_count(split) for split in splits])[:-1])
    counts = [int(_known(part).sum()) for part in parts]
    said = [f"{count:,} of {len(part):,} in {s.name}" for count, part, s in zip(counts, parts, splits, strict=True)]
    print(f"judgements: rows whose text was judged: {', '.join(said)}; the others have no logits", flush=True)
    if not sum(counts[:2]):
        raise UserError(
            "Expected judgements of texts to train on (exactly the same text); no text of the training rows and the "
            f"pool was judged: {', '.join(said)}.",
            "Put judgements of these texts into the file data.judgements, or set label.source to teachers.",
            "data",
        )


def _calibrated(task: Task, logits: RowLogits, first: int, validation: Path, settings: Label) -> Calibration:
    """The temperature of the validation rows, which begin at ``first``, as far as something is known of them."""
    if not task.calibrated:
        print(f"calibration: temperature 1: none is fitted for {task.name}", flush=True)
        return UNCALIBRATED
    rows = logits.rows(first, len(logits) - first)
    scored = np.concatenate([np.zeros((0, logits.values.shape[1])), *rows])
    known = _known(scored)
    if settings.source == "judgements" and known.sum() < ENOUGH_JUDGEMENTS:
        print(
            f"calibration: temperature 1, as {known.sum()} validation rows were judged; "
            f"at least {ENOUGH_JUDGEMENTS} are needed to fit one",
            flush=True,
        )
        return UNCALIBRATED
    columns = [batch["label"] for batch in read_batches(validation, ["label"])]
    flat = [pc.list_flatten(column) if pa.types.is_list(column.type) else column for column in columns]
    labels = np.concatenate([np.zeros(0, np.int64), *flat])
    calibration = calibrate(scored[known].astype(np.float32), labels[known])
    print(calibration.describe(), flush=True)
    return calibration


def _write(split: Path, task: Task, logits: RowLogits, first: int, temperature: float, target: Path) -> None:
    """The logits of a split, whose rows begin at ``first``, in shards of the same names with the same rows."""
    target.mkdir()
    for shard in sorted(split.glob("*.parquet")):
        with pq.ParquetWriter(target / shard.name, _SCHEMA, compression="zstd") as writer:
            for batch in read_shard(shard, ["row"]):
                rows = [one.astype(np.float32) for one in logits.rows(first, batch.num_rows)]
                writer.write_batch(_batch(batch["row"], task, rows, temperature))
                first += batch.num_rows


def _batch(rows: pa.Array, task: Task, logits: list[np.ndarray], temperature: float) -> pa.RecordBatch:
    known = np.array([bool(_known(one).any()) for one in logits])
    values = [one.ravel() for one, there in zip(logits, known, strict=True) if there]
    # Lists of one size would be the better type, but Parquet files with nulls among them can't be read back.
    sizes = [one.size if there else 0 for one, there in zip(logits, known, strict=True)]
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    flat = np.concatenate([np.zeros(0, np.float32), *values])
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(flat, pa.float32()), mask=pa.array(~known))
    sure = np.full(len(logits), np.nan, dtype=np.float32)
    if known.any():
        judged = task.confidence(
            [one.astype(np.float64) / temperature for one, there in zip(logits, known, strict=True) if there]
        )
        sure[known] = 1.0 if judged is None else judged  # who can't tell how sure it is, is
    return pa.record_batch([rows, lists, pa.array(sure, mask=~known)], schema=_SCHEMA)
