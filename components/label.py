"""What students learn from, computed once: the logits of teachers or of given judgements, and how sure they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoConfig

from components.errors import UserError
from components.ml.models.device import use_device
from components.ml.models.folders import loading
from components.ml.rows.inputs import Input, input_columns, inputs_of
from components.ml.rows.tokenised import read_batches, read_shard
from components.ml.teaching.calibration import UNCALIBRATED, Calibration, calibrate, confidence
from components.ml.teaching.judgements import look_up
from components.ml.teaching.teachers import Scoring, Teacher, average
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
    labels = _labels(teacher)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=output) as scratch:
        logits = _blank(Path(scratch) / "logits", sum(map(_count, splits)), len(labels))
        if settings.source == "judgements":
            look_up(judgements, lambda: _texts(splits), logits, Path(scratch))
            _check_coverage(logits, splits)
        else:
            scoring = Scoring(labels, runtime, max_length, settings.batch_size, logit_store)
            average(_teachers(teacher, models, settings), lambda: _texts(splits), logits, scoring)
        parts = _by_split(logits, splits)
        calibration = _calibrated(parts[2], validation, settings)
        for split, part in zip((train, unlabelled), parts, strict=False):
            _write(split, part, calibration.temperature, output / split.name)
    calibration.save(output / "calibration.json")


def _labels(teacher: Path) -> list[str]:
    """The classes, in the order of the data's labels: the teacher trained here has them so."""
    names = AutoConfig.from_pretrained(teacher, **loading()).id2label
    return [str(names[index]) for index in sorted(names)]


def _teachers(teacher: Path, models: Mapping[str, str], settings: Label) -> list[Teacher]:
    return [
        Teacher(name, teacher, weight, "teacher")
        if name == TRAINED_HERE
        else Teacher(name, Path(models[name]), weight, f"data.models.{name}")
        for name, weight in settings.teachers.items()
    ]


def _count(split: Path) -> int:
    return sum(pq.read_metadata(shard).num_rows for shard in split.glob("*.parquet"))


def _texts(splits: Sequence[Path]) -> Iterator[tuple[int, list[Input]]]:
    """All texts or pairs of the splits, one after the other, some at a time, with the place of the first of them."""
    first = 0
    for split in splits:
        for batch in read_batches(split, input_columns(split)):
            yield first, inputs_of(batch)
            first += batch.num_rows


def _blank(path: Path, rows: int, classes: int) -> np.ndarray:
    """Zeros on disk, float64 of shape (rows, classes)."""
    size = max(rows, 1) * classes * 8  # an empty file can't be mapped
    with path.open("wb") as file:  # written in full: a mapped file that finds the disk full kills the process
        for start in range(0, size, _CHUNK):
            file.write(bytes(min(_CHUNK, size - start)))
    return np.asarray(np.memmap(path, np.float64, "r+", shape=(max(rows, 1), classes))[:rows])


def _by_split(logits: np.ndarray, splits: Sequence[Path]) -> list[np.ndarray]:
    return np.split(logits, np.cumsum([_count(split) for split in splits])[:-1])


def _known(logits: np.ndarray) -> np.ndarray:
    return np.asarray(~np.isnan(logits[:, 0]))


def _check_coverage(logits: np.ndarray, splits: Sequence[Path]) -> None:
    """Say how many rows were judged.

    Raises:
        UserError: none that a student could learn from.
    """
    parts = _by_split(logits, splits)
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


def _calibrated(logits: np.ndarray, validation: Path, settings: Label) -> Calibration:
    """The temperature of the validation rows of which something is known."""
    known = _known(logits)
    if settings.source == "judgements" and known.sum() < ENOUGH_JUDGEMENTS:
        print(
            f"calibration: temperature 1, as {known.sum()} validation rows were judged; "
            f"at least {ENOUGH_JUDGEMENTS} are needed to fit one",
            flush=True,
        )
        return UNCALIBRATED
    labels = np.concatenate([np.zeros(0, np.int64), *(batch["label"] for batch in read_batches(validation, ["label"]))])
    calibration = calibrate(logits[known].astype(np.float32), labels[known])
    print(calibration.describe(), flush=True)
    return calibration


def _write(split: Path, logits: np.ndarray, temperature: float, target: Path) -> None:
    """The logits of a split, in shards of the same names with the same rows."""
    target.mkdir()
    first = 0
    for shard in sorted(split.glob("*.parquet")):
        with pq.ParquetWriter(target / shard.name, _SCHEMA, compression="zstd") as writer:
            for batch in read_shard(shard, ["row"]):
                part = logits[first : first + batch.num_rows].astype(np.float32)
                writer.write_batch(_batch(batch["row"], part, temperature))
                first += batch.num_rows


def _batch(rows: pa.Array, logits: np.ndarray, temperature: float) -> pa.RecordBatch:
    known = _known(logits)
    # Lists of one size would be the better type, but Parquet files with nulls among them can't be read back.
    ends = np.concatenate([[0], np.cumsum(known) * logits.shape[1]]).astype(np.int32)
    values = pa.array(logits[known].ravel(), pa.float32())
    lists = pa.ListArray.from_arrays(pa.array(ends), values, mask=pa.array(~known))
    sure = pa.array(confidence(logits, temperature), pa.float32(), mask=~known)
    return pa.record_batch([rows, lists, sure], schema=_SCHEMA)
