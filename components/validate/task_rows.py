"""The rows of another task's file, read and checked one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.ml.tasks.task import Example, Task
from components.validate.canonical import KEPT
from components.validate.examples import kept, read_examples, texts_of
from components.validate.measure import form_digest
from components.validate.problems import Problems
from components.validate.tables import Table, is_paired

# ``form`` is the digest of the normalised text, or pair, as for the project's own rows; rows of one ``unit`` (their
# form, or what the task calls a document) stay together.
READ = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("form", pa.binary()),
        pa.field("unit", pa.binary()),
        pa.field("stratum", pa.string()),
        pa.field("text", pa.string()),
        pa.field("text_pair", pa.string()),
        *KEPT,
    ]
)


def read_task_rows(table: Table, task: Task, target: Path) -> None:
    """Write the rows of a table of a task to a Parquet file with the columns of ``READ``, in order.

    Raises:
        UserError: the file can't be read, or rows that can't be used, with their numbers and what is wrong.
    """
    problems, paired = Problems(table), is_paired(table, task)
    with pq.ParquetWriter(target, READ, compression="zstd") as writer:
        for rows in read_examples(table, task):
            sound = [
                (row, example)
                for row, example in enumerate(rows.examples, rows.first)
                if not _noted(row, example, task, paired, problems)
            ]
            writer.write_batch(pa.RecordBatch.from_pydict(_columns(sound, task, paired), schema=READ))
    problems.stop()


def _noted(row: int, example: Example, task: Task, paired: bool, problems: Problems) -> bool:
    """Whether anything is wrong with a row; then ``problems`` know it."""
    faults = [(fault.what, fault.detail) for fault in example.faults] or list(_lacking(example, task, paired))
    for what, detail in faults:
        problems.add(what, row, detail)
    return bool(faults)


def _lacking(example: Example, task: Task, paired: bool) -> Iterator[tuple[str, str]]:
    if not all(text and text.strip() for text in texts_of(example, paired)):
        yield "without a text", ""
    if task.shown(example) is None or not all(name.strip() for name in example.names or ()):
        yield f"without {'' if task.target.endswith('s') else 'a '}{task.target}", ""


def _columns(sound: list[tuple[int, Example]], task: Task, paired: bool) -> dict[str, list[Any]]:
    examples = [example for _, example in sound]
    given = [texts_of(example, paired) for example in examples]
    forms = [form_digest(*(text or "" for text in texts)) for texts in given]
    documents = [task.document_of(example) for example in examples]
    return {
        "row": [row for row, _ in sound],
        "form": forms,
        "unit": [(document or "").encode() or form for form, document in zip(forms, documents, strict=True)],
        "stratum": [task.stratum(example) for example in examples],
        "text": [texts[0] for texts in given],
        "text_pair": [texts[1] if paired else None for texts in given],
        **kept(examples),
    }
