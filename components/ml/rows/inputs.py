"""What a model reads of a row: a text, or two that belong together. How both are read, tokenised and told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Input = str | tuple[str, str]
TEXT, PAIR = "text", "text_pair"
BETWEEN = " ⟷ "
"""What people see between the two texts of a pair."""


def input_columns(split: Path) -> list[str]:
    """The columns that hold what a model reads of a split's rows: ``text``, and ``text_pair`` where rows are pairs."""
    import pyarrow.parquet as pq

    shard = next(iter(sorted(split.glob("*.parquet"))), None)
    paired = shard is not None and PAIR in pq.read_schema(shard).names
    return [TEXT, PAIR] if paired else [TEXT]


def inputs_of(rows: pa.RecordBatch | pa.Table) -> list[Input]:
    """What a model reads of each row."""
    texts: list[Any] = rows[TEXT].to_pylist()
    return list(zip(texts, rows[PAIR].to_pylist(), strict=True)) if PAIR in rows.schema.names else texts


def encode(tokenizer: PreTrainedTokenizerBase, inputs: Sequence[Input], **options: Any) -> BatchEncoding:
    """Tokenise texts, or pairs; ``options`` are the tokenizer's. Of a pair that is too long the longer text is cut."""
    pairs = [each for each in inputs if not isinstance(each, str)]
    texts = [[first for first, _ in pairs], [second for _, second in pairs]] if pairs else [list(inputs)]
    encoded: BatchEncoding = tokenizer(*texts, **options)
    return encoded


def input_key(given: Input) -> bytes:
    """What an input is found again by: 16 bytes; two of 10^12 share them with a chance of about 10^-15."""
    person, told = (b"", given) if isinstance(given, str) else (b"pair", f"{len(given[0])} {given[0]}{given[1]}")
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16, person=person).digest()


def shown(given: Input) -> str:
    """An input as people read it."""
    return given if isinstance(given, str) else BETWEEN.join(given)
