"""One pass over the sources: what must be asked of each text itself, streamed to one Parquet file."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.ml.rows.inputs import Input
from components.ml.tasks.task import Task
from components.params.data import Data
from components.text import looks_damaged, normalise
from components.validate.canonical import KEPT
from components.validate.examples import Examples, kept, read_examples, texts_of
from components.validate.scripts import scripts_of
from components.validate.tables import reads_pairs, split_table

# source: the file's role in params.yaml. label: the target as people read it. same_text and same_form are digests of
# the text (or pair) and of its normalised form, so that whole-data questions need no text; null where a text is missing
# or blank. ``forms`` holds the digest of each of a pair's texts. ``faults`` says why a row can't be used.
MEASURED = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("text_pair", pa.string()),
        pa.field("label", pa.string()),
        pa.field("group", pa.string()),
        pa.field("document", pa.string()),
        pa.field("same_text", pa.binary()),
        pa.field("same_form", pa.binary()),
        pa.field("forms", pa.list_(pa.binary())),
        pa.field("characters", pa.int32()),
        pa.field("tokens", pa.int32()),
        pa.field("blank", pa.bool_()),
        pa.field("damaged", pa.bool_()),
        pa.field("scripts", pa.list_(pa.string())),
        pa.field("stratum", pa.string()),
        pa.field("faults", pa.list_(pa.struct([("what", pa.string()), ("detail", pa.string())]))),
        *KEPT,
    ]
)


CountTokens = Callable[[Sequence[Input]], list[int]]


def measure(data: Data, root: Path, count_tokens: CountTokens, target: Path) -> None:
    """Read every source once and write its rows with the measures of ``MEASURED`` to ``target``, in order."""
    paired = reads_pairs(data)
    with pq.ParquetWriter(target, MEASURED, compression="zstd") as writer:
        for source in data.files:
            for rows in read_examples(split_table(data, source, root), data.kind):
                columns = {"source": [source] * len(rows.examples), **_measured(rows, data, paired, count_tokens)}
                writer.write_batch(
                    pa.RecordBatch.from_pydict({name: columns[name] for name in MEASURED.names}, schema=MEASURED)
                )


def _measured(rows: Examples, data: Data, paired: bool, count_tokens: CountTokens) -> dict[str, list[Any]]:
    task, examples = data.kind, rows.examples
    given = [texts_of(example, paired) for example in examples]
    pieces = [tuple(text or "" for text in row) for row in given]
    whole = [all(text.strip() for text in row) for row in pieces]
    named = data.columns.document is not None
    return {
        "row": list(range(rows.first, rows.first + len(examples))),
        "text": [row[0] for row in given],
        "text_pair": [row[1] if paired else None for row in given],
        "label": [task.shown(example) for example in examples],
        "group": rows.values["group"],
        "document": rows.values["document"] if named else [task.document_of(example) for example in examples],
        "same_text": [_of_all(map(_digest, row)) if sound else None for row, sound in zip(pieces, whole, strict=True)],
        "same_form": [form_digest(*row) if sound else None for row, sound in zip(pieces, whole, strict=True)],
        "forms": [list(map(_form_of_one, row)) if paired else [] for row in pieces],
        "characters": [sum(map(len, row)) for row in pieces],
        "tokens": count_tokens([(row[0], row[1]) if paired else row[0] for row in pieces]),
        "blank": [any(text is not None and not text.strip() for text in row) for row in given],
        "damaged": [any(map(looks_damaged, row)) for row in pieces],
        "scripts": [scripts_of(_unmarked(" ".join(row), task)) for row in pieces],
        "stratum": [task.stratum(example) for example in examples],
        "faults": [[{"what": fault.what, "detail": fault.detail} for fault in each.faults] for each in examples],
        **kept(examples),
    }


def _unmarked(text: str, task: Task) -> str:
    """The text without the markers that its task puts there."""
    return functools.reduce(lambda left, marker: left.replace(marker, " "), task.markers, text)


def form_digest(*texts: str) -> bytes:
    """The digest of the normalised text, or of both texts of a pair in their order."""
    return _of_all(map(_form_of_one, texts))


def _form_of_one(text: str) -> bytes:
    """A text that normalises to nothing is compared as it stands."""
    form = normalise(text)
    return _digest("form:" + form) if form else _digest("text:" + text)


def _of_all(digests: Iterable[bytes]) -> bytes:
    """One digest of several; of one that itself."""
    first, *others = digests
    return hashlib.blake2b(b"".join([first, *others]), digest_size=16).digest() if others else first


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
