"""What an exported file does on rows: the logits it gives beside the model's it was made from, and how good it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.ml.models.onnx_classifier import load_onnx
from components.ml.models.scoring import label_names, load_classifier, predict_rows, sound
from components.ml.models.task_models import task_of
from components.ml.rows.inputs import Input, input_columns, inputs_of
from components.ml.tasks.task import Reading, Task
from components.params.export import Export

ROWS_AT_ONCE = 8192


def parity(source: Path, exported: Path, test: Path, reading: Reading, settings: Export) -> dict[str, Any]:
    """Compare the logits of every test row after loading the file back.

    Raises:
        UserError: they differ by more than ``export.parity``.
    """
    models = load_classifier(source), load_onnx(exported)
    rows, largest = 0, 0.0
    for batch in _batches(test, input_columns(test)):
        inputs = inputs_of(batch)
        expected, found = (
            predict_rows(model, tokenizer, inputs, reading=reading, batch_size=settings.batch_size)
            for model, tokenizer in models
        )
        rows += len(inputs)
        gaps = [_gap(one, other) for one, other in zip(expected, found, strict=True)]
        largest = float(np.maximum(largest, np.max(gaps, initial=0)))  # NaN stays: it is no parity
    if not largest <= settings.parity:
        raise UserError(
            f"The exported model gives other logits than the one it was made from: on {rows} test rows they differ by "
            f"up to {largest:.2g}; expected at most {settings.parity:g} (export.parity).",
            "Set export.parity higher if that is no harm, or leave the export out: `export.formats: []`.",
            "model",
        )
    return {"rows": rows, "largest_difference": largest}


def _gap(expected: np.ndarray, found: np.ndarray) -> float:
    """How far the logits of a row differ at most, positions that both cut off left out; NaN where any aren't finite."""
    if not sound(expected) or not sound(found):
        return float("nan")
    read = ~np.isnan(expected).all(axis=-1)
    return float(np.abs(expected[read] - found[read]).max(initial=0))


def quality(folder: Path, rows: Path, reading: Reading, batch_size: int) -> float:
    """The headline metric of the model of ``folder`` on some rows, such as the share that it gets right."""
    model, tokenizer = load_onnx(folder)
    task, names = task_of(model), label_names(model)
    targets, predictions = [], []
    for batch in _batches(rows, [*input_columns(rows), "label"]):
        inputs = inputs_of(batch)
        logits = predict_rows(model, tokenizer, inputs, reading=reading, batch_size=batch_size)
        targets += batch["label"].to_pylist()
        predictions += task.decode(inputs, logits, names, tokenizer)
    sums = np.asarray(task.counts(targets, predictions, names).sum(axis=0))
    return float(task.scores(sums, names)[task.headline.key])


def task_of_folder(folder: Path) -> Task:
    """The task of an exported model."""
    return task_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def spread(folder: Path, count: int) -> list[Input]:
    """The texts or pairs of at most ``count`` rows, evenly spread, so that every source has its share."""
    total = sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
    wanted = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
    inputs: list[Input] = []
    first = 0
    for batch in _batches(folder, input_columns(folder)):
        here = wanted[(wanted >= first) & (wanted < first + len(batch))] - first
        inputs += inputs_of(batch.take(pa.array(here)))
        first += len(batch)
    return inputs


def _batches(folder: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for path in sorted(folder.glob("*.parquet")):
        yield from pq.ParquetFile(path).iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
