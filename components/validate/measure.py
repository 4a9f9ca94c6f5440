"""One pass over the sources: what must be asked of each text itself, streamed to one Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.ml.rows.inputs import Input
from components.params.data import Data
from components.text import looks_damaged, normalise
from components.validate.reading import Rows, read_rows

# source: the file's role in params.yaml. same_text and same_form are digests of the text (or pair) and of its
# normalised form, so that whole-data questions need no text; null where a text is missing or blank. ``forms`` holds
# the digest of each of a pair's texts.
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
    ]
)


CountTokens = Callable[[Sequence[Input]], list[int]]


def measure(data: Data, root: Path, count_tokens: CountTokens, target: Path) -> None:
    """Read every source once and write its rows with the measures of ``MEASURED`` to ``target``, in order."""
    with pq.ParquetWriter(target, MEASURED, compression="zstd") as writer:
        for source in data.files:
            for rows in read_rows(data, source, root):
                writer.write_batch(_measured(source, rows, count_tokens, data.columns.text_pair is not None))


def _measured(source: str, rows: Rows, count_tokens: CountTokens, paired: bool) -> pa.RecordBatch:
    given = [rows.values["text"], *([rows.values["text_pair"]] if paired else [])]
    pieces = [tuple(text or "" for text in row) for row in zip(*given, strict=True)]
    whole = [all(text.strip() for text in row) for row in pieces]
    columns = {
        "source": [source] * len(pieces),
        "row": range(rows.first, rows.first + len(pieces)),
        **rows.values,
        "same_text": [_of_all(map(_digest, row)) if sound else None for row, sound in zip(pieces, whole, strict=True)],
        "same_form": [form_digest(*row) if sound else None for row, sound in zip(pieces, whole, strict=True)],
        "forms": [list(map(_form_of_one, row)) if paired else [] for row in pieces],
        "characters": [sum(map(len, row)) for row in pieces],
        "tokens": count_tokens([(row[0], row[1]) if paired else row[0] for row in pieces]),
        "blank": [any(text is not None and not text.strip() for text in row) for row in zip(*given, strict=True)],
        "damaged": [any(map(looks_damaged, row)) for row in pieces],
    }
    return pa.RecordBatch.from_pydict({name: list(values) for name, values in columns.items()}, schema=MEASURED)


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
