"""The rows that all other stages read: one layout for every task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from components.ml.tasks.task import Task
from components.validate.examples import restored

ABOUT = (pa.field("group", pa.string()), pa.field("document", pa.string()))
KEPT = (
    pa.field("words", pa.list_(pa.string())),
    pa.field("names", pa.list_(pa.string())),
    pa.field("value", pa.string()),
)
"""What is kept of a row until it is written, see ``examples.kept``."""
BATCH_ROWS = 8192


def layout(task: Task, paired: bool = False, worded: bool = False, about: bool = True) -> pa.Schema:
    """``row``, ``text``, ``text_pair`` of pairs, ``tokens`` where the words are given, ``label``, ``group``,
    ``document``."""
    return pa.schema(
        [
            pa.field("row", pa.int64()),
            pa.field("text", pa.string()),
            *([pa.field("text_pair", pa.string())] if paired else []),
            *([pa.field("tokens", pa.list_(pa.string()))] if worded else []),
            pa.field("label", task.target_type()),
            *(ABOUT if about else ()),
        ]
    )


def canonical(
    batches: pa.RecordBatchReader, task: Task, places: Mapping[str, int], schema: pa.Schema, labelled: bool = True
) -> Iterator[pa.RecordBatch]:
    """Rows of ``row``, ``text``, ``text_pair``, the columns of ``KEPT`` and those of ``ABOUT`` in a layout.

    Args:
        batches: the rows.
        task: whose targets they have.
        places: the numbers of the classes.
        schema: a ``layout``.
        labelled: whether they have targets at all; the pool has none.
    """
    for batch in batches:
        columns: dict[str, Any] = batch.to_pydict()
        examples = restored(columns)
        columns["tokens"] = columns["words"]
        columns["label"] = [task.encode(example, places) if labelled else None for example in examples]
        yield pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema=schema)
