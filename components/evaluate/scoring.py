"""Reads the test rows and scores them with one model at a time; predictions go to disk as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from components.errors import UserError
from components.ml.models.loading import load, megabytes, parameters
from components.ml.models.scoring import label_names, predict_logits
from components.ml.rows.inputs import inputs_of
from components.ml.statistics.metrics import softmax
from components.params.stages import Runtime

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Rows:
    """What the scores are computed against: integer arrays of shape (rows,), and the groups' names by code."""

    labels: np.ndarray
    documents: np.ndarray
    groups: np.ndarray
    group_names: list[str]


@dataclass(frozen=True)
class Scored:
    """A model's size and its predictions: arrays of shape (rows,)."""

    class_names: list[str]
    parameters: int
    megabytes: float
    predictions: np.ndarray
    confidence: np.ndarray


def read_rows(folder: Path) -> Rows:
    """Labels, documents and groups of the test rows, in file order.

    Raises:
        UserError: there is no test row.
    """
    columns = ["label", "group", "document"]
    table = pa.concat_tables([pq.read_table(path, columns=columns) for path in _shards(folder)])
    if not table.num_rows:
        raise UserError(
            "The test split has no rows.", "Name test rows under data.test, or let data.split set some aside.", "data"
        )
    group_names = sorted(pc.unique(table["group"]).to_pylist())
    return Rows(
        table["label"].to_numpy(),
        _codes(table["document"], pc.unique(table["document"])),
        _codes(table["group"], pa.array(group_names)),
        group_names,
    )


def score(
    test: Path, model_folder: Path, predictions: Path, *, runtime: Runtime, max_length: int, batch_size: int
) -> Scored:
    """Score every test row with the model and write the row's prediction and logits to ``predictions``."""
    model, tokenizer = load(model_folder, torch.device(runtime.device))
    class_names = label_names(model)
    schema = _schema(len(class_names))
    predicted, confidence = [], []
    with pq.ParquetWriter(predictions, schema) as writer:
        for batch in _batches(test):
            logits = predict_logits(model, tokenizer, inputs_of(batch), max_length=max_length, batch_size=batch_size)
            predicted.append(logits.argmax(axis=-1).astype(np.int32))
            confidence.append(softmax(logits).max(axis=-1))
            writer.write_table(_table(batch, predicted[-1], logits, schema))
    return Scored(
        class_names=class_names,
        parameters=parameters(model),
        megabytes=megabytes(model_folder),
        predictions=np.concatenate(predicted),
        confidence=np.concatenate(confidence),
    )


def common_classes(scored: dict[str, Scored], labels: np.ndarray) -> list[str]:
    """The class names that all models share.

    Raises:
        UserError: two models differ in their classes, or a test label is none of them.
    """
    first, names = next((name, model.class_names) for name, model in scored.items())
    for name, model in scored.items():
        if model.class_names != names:
            raise UserError(
                f"All models must have the classes of the {first}, {names}; the {name} has {model.class_names}.",
                "Give a teacher that was tuned on the labels of this data, in the same order.",
                "model",
            )
    if not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(
            f"The models know {len(names)} classes ({', '.join(names)}); the test labels run from {labels.min()} "
            f"to {labels.max()}.",
            "Give a teacher that was tuned on the labels of this data.",
            "model",
        )
    return names


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _batches(folder: Path) -> Iterator[pa.RecordBatch]:
    for path in _shards(folder):
        yield from pq.ParquetFile(path).iter_batches(batch_size=ROWS_AT_ONCE)


def _codes(values: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    return np.asarray(pc.index_in(values, value_set=known))


def _schema(classes: int) -> pa.Schema:
    text, whole = pa.string(), pa.int32()
    logits = pa.list_(pa.float32(), classes)
    fields = {"row": pa.int64(), "group": text, "document": text, "label": whole, "prediction": whole, "logits": logits}
    return pa.schema(list(fields.items()))


def _table(batch: pa.RecordBatch, predicted: np.ndarray, logits: np.ndarray, schema: pa.Schema) -> pa.Table:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    kept = [batch[name] for name in ("row", "group", "document", "label")]
    return pa.Table.from_arrays([*kept, pa.array(predicted), flat], names=schema.names).cast(schema)
