"""Reads the test rows and scores them with one model at a time; predictions go to disk as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from components.errors import UserError
from components.ml.models.loading import load, megabytes, parameters
from components.ml.models.scoring import label_names, predict_rows
from components.ml.models.task_models import task_of
from components.ml.rows.inputs import inputs_of
from components.ml.tasks.task import Reading, Task
from components.params.stages import Runtime

ROWS_AT_ONCE = 8192
Values = Any
"""Targets or predictions of rows: an integer array of shape (rows,) where a row has one class, else an object array."""


@dataclass(frozen=True)
class Rows:
    """What the scores are computed against: arrays of shape (rows,), and the groups' names by code."""

    targets: Values
    documents: np.ndarray
    groups: np.ndarray
    group_names: list[str]

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True)
class Scored:
    """A model's task and size, and its predictions, one for each row.

    ``confidence`` has shape (rows,), None where the task has none. ``logits`` are each row's, of shape (positions,
    classes); they are kept only where a row has more than one class, since metrics may need them there.
    """

    task: Task
    class_names: list[str]
    parameters: int
    megabytes: float
    predictions: Values
    confidence: np.ndarray | None
    logits: Values | None = None


def read_rows(folder: Path) -> Rows:
    """Targets, documents and groups of the test rows, in file order.

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
        as_values(table["label"]),
        _codes(table["document"], pc.unique(table["document"])),
        _codes(table["group"], pa.array(group_names)),
        group_names,
    )


def as_values(column: pa.ChunkedArray) -> Values:
    """A column of targets or predictions as an array with one entry for each row."""
    if pa.types.is_primitive(column.type):
        return column.to_numpy()
    return _objects(column.to_pylist())


def score(
    test: Path, model_folder: Path, predictions: Path, *, runtime: Runtime, reading: Reading, batch_size: int
) -> Scored:
    """Score every test row with the model and write the row's prediction and logits to ``predictions``."""
    model, tokenizer = load(model_folder, torch.device(runtime.device))
    task, class_names = task_of(model), label_names(model)
    predicted: list[Any] = []
    kept: list[np.ndarray] = []
    confidence: list[np.ndarray] = []
    schema = _schema(task, len(class_names))
    with pq.ParquetWriter(predictions, schema) as writer:
        for batch in _batches(test):
            inputs = inputs_of(batch)
            logits = predict_rows(model, tokenizer, inputs, reading=reading, batch_size=batch_size)
            found, sure = task.decode(inputs, logits, class_names, tokenizer), task.confidence(logits)
            predicted += found
            if sure is not None:
                confidence.append(sure)
            if not task.classes_per_row:
                kept += logits
            writer.write_table(_table(batch, task, class_names, found, sure, logits, schema))
    return Scored(
        task=task,
        class_names=class_names,
        parameters=parameters(model),
        megabytes=megabytes(model_folder),
        predictions=as_values(pa.chunked_array([pa.array(predicted, task.prediction_type())])),
        confidence=np.concatenate(confidence) if confidence else None,
        logits=_objects(kept) if kept else None,
    )


def common_classes(scored: dict[str, Scored], rows: Rows) -> list[str]:
    """The class names that all models share.

    Raises:
        UserError: two models differ in their task or classes, or a test label is none of them.
    """
    first, (task, names) = next((name, (model.task, model.class_names)) for name, model in scored.items())
    for name, model in scored.items():
        if model.task.name != task.name:
            raise UserError(
                f"All models must be of the task of the {first}, {task.name}; the {name} is of {model.task.name}.",
                "Give models that were tuned for the task of this data.",
                "model",
            )
        if model.class_names != names:
            raise UserError(
                f"All models must have the classes of the {first}, {names}; the {name} has {model.class_names}.",
                "Give a teacher that was tuned on the labels of this data, in the same order.",
                "model",
            )
    if task.classes_per_row and not 0 <= rows.targets.min() <= rows.targets.max() < len(names):
        raise UserError(
            f"The models know {len(names)} classes ({', '.join(names)}); the test labels run from "
            f"{rows.targets.min()} to {rows.targets.max()}.",
            "Give a teacher that was tuned on the labels of this data.",
            "model",
        )
    return names


def _objects(values: list[Any]) -> np.ndarray:
    """An array with one object for each row, even where all are lists of one length."""
    found = np.empty(len(values), dtype=object)
    found[:] = values if not values or not isinstance(values[0], np.ndarray) else [*values]
    return found


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _batches(folder: Path) -> Iterator[pa.RecordBatch]:
    for path in _shards(folder):
        yield from pq.ParquetFile(path).iter_batches(batch_size=ROWS_AT_ONCE)


def _codes(values: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    return np.asarray(pc.index_in(values, value_set=known))


def _schema(task: Task, classes: int) -> pa.Schema:
    text = pa.string()
    logits = pa.list_(pa.float32(), classes) if task.classes_per_row else pa.list_(pa.float32())
    fields = {"row": pa.int64(), "group": text, "document": text, "label": task.target_type()}
    fields |= {"prediction": task.prediction_type(), "logits": logits}
    fields |= {"actual": text, "predicted": text, "right": pa.bool_(), "confidence": pa.float32()}
    return pa.schema(list(fields.items()))


def _table(
    batch: pa.RecordBatch,
    task: Task,
    names: list[str],
    predicted: list[Any],
    confidence: np.ndarray | None,
    logits: list[np.ndarray],
    schema: pa.Schema,
) -> pa.Table:
    """What is written of some rows; ``actual`` and ``predicted`` are for people."""
    targets, nothing = batch["label"].to_pylist(), pa.nulls(len(predicted))
    right = task.right(targets, predicted)
    columns = [
        *(batch[name] for name in ("row", "group", "document", "label")),
        pa.array(predicted, task.prediction_type()),
        pa.array([one.ravel() for one in logits], pa.list_(pa.float32())),
        pa.array([task.said(target, names) for target in targets]),
        pa.array([task.said(one, names) for one in predicted]),
        nothing if right is None else pa.array(right),
        nothing if confidence is None else pa.array(confidence.astype(np.float32)),
    ]
    return pa.Table.from_arrays(columns, names=schema.names).cast(schema)
