"""One pass over the sources: what must be asked of each text itself, streamed to one Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.params.data import Data
from components.text import looks_damaged, normalise
from components.validate.reading import Rows, read_rows

# source: the file's role in params.yaml. same_text and same_form are digests of the text and of its normalised
# form, so that whole-data questions need no text; null where a text is missing or blank.
MEASURED = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("label", pa.string()),
        pa.field("group", pa.string()),
        pa.field("document", pa.string()),
        pa.field("same_text", pa.binary()),
        pa.field("same_form", pa.binary()),
        pa.field("characters", pa.int32()),
        pa.field("tokens", pa.int32()),
        pa.field("blank", pa.bool_()),
        pa.field("damaged", pa.bool_()),
    ]
)


def measure(data: Data, root: Path, count_tokens: Callable[[Sequence[str]], list[int]], target: Path) -> None:
    """Read every source once and write its rows with the measures of ``MEASURED`` to ``target``, in order."""
    with pq.ParquetWriter(target, MEASURED, compression="zstd") as writer:
        for source in data.files:
            for rows in read_rows(data, source, root):
                writer.write_batch(_measured(source, rows, count_tokens))


def _measured(source: str, rows: Rows, count_tokens: Callable[[Sequence[str]], list[int]]) -> pa.RecordBatch:
    given = rows.values["text"]
    texts = [text or "" for text in given]
    blank = [text is not None and not text.strip() for text in given]
    count = len(given)
    columns = {
        "source": [source] * count,
        "row": range(rows.first, rows.first + count),
        **rows.values,
        "same_text": [_digest(text) if text.strip() else None for text in texts],
        "same_form": [form_digest(text) if text.strip() else None for text in texts],
        "characters": [len(text) for text in texts],
        "tokens": count_tokens(texts),
        "blank": blank,
        "damaged": [looks_damaged(text) for text in texts],
    }
    return pa.RecordBatch.from_pydict({name: list(values) for name, values in columns.items()}, schema=MEASURED)


def form_digest(text: str) -> bytes:
    """The digest of the normalised text; a text that normalises to nothing is compared as it stands."""
    form = normalise(text)
    return _digest("form:" + form) if form else _digest("text:" + text)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
