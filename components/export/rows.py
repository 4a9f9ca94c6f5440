"""What an exported file does on rows: the logits it gives beside the model's it was made from, and its accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import UserError
from components.ml.models.onnx_classifier import load_onnx
from components.ml.models.scoring import load_classifier, predict_logits
from components.ml.rows.inputs import Input, input_columns, inputs_of
from components.params.export import Export

ROWS_AT_ONCE = 8192


def parity(source: Path, exported: Path, test: Path, max_length: int, settings: Export) -> dict[str, Any]:
    """Compare the logits of every test row after loading the file back.

    Raises:
        UserError: they differ by more than ``export.parity``.
    """
    models = load_classifier(source), load_onnx(exported)
    rows, largest = 0, 0.0
    for batch in _batches(test, input_columns(test)):
        inputs = inputs_of(batch)
        expected, found = (
            predict_logits(model, tokenizer, inputs, max_length=max_length, batch_size=settings.batch_size)
            for model, tokenizer in models
        )
        rows += len(inputs)
        largest = float(np.maximum(largest, np.abs(expected - found).max()))  # NaN stays: it is no parity
    if not largest <= settings.parity:
        raise UserError(
            f"The exported model gives other logits than the one it was made from: on {rows} test rows they differ by "
            f"up to {largest:.2g}; expected at most {settings.parity:g} (export.parity).",
            "Set export.parity higher if that is no harm, or leave the export out: `export.formats: []`.",
            "model",
        )
    return {"rows": rows, "largest_difference": largest}


def accuracy(folder: Path, rows: Path, max_length: int, batch_size: int) -> float:
    """The share of rows that the model of ``folder`` gets right."""
    model, tokenizer = load_onnx(folder)
    right = total = 0
    for batch in _batches(rows, [*input_columns(rows), "label"]):
        inputs, labels = inputs_of(batch), batch["label"].to_numpy()
        logits = predict_logits(model, tokenizer, inputs, max_length=max_length, batch_size=batch_size)
        right, total = right + int((logits.argmax(axis=-1) == labels).sum()), total + len(labels)
    return right / total


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
