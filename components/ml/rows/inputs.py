"""What a model reads of a row: a text, two that belong together, or words. How they are read, tokenised, told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Input = str | tuple[str, str] | list[str]
"""A text, a pair of texts, or a text that is cut into words."""
TEXT, PAIR, TOKENS = "text", "text_pair", "tokens"
BETWEEN = " ⟷ "
"""What people see between the two texts of a pair."""


def input_columns(split: Path) -> list[str]:
    """The columns that hold what a model reads of a split's rows: ``text`` (``text_pair``), or ``tokens``."""
    import pyarrow.parquet as pq

    shard = next(iter(sorted(split.glob("*.parquet"))), None)
    names = pq.read_schema(shard).names if shard is not None else [TEXT]
    return [TOKENS] if TOKENS in names else [TEXT, PAIR] if PAIR in names else [TEXT]


def inputs_of(rows: pa.RecordBatch | pa.Table) -> list[Input]:
    """What a model reads of each row."""
    if TOKENS in rows.schema.names:
        words: list[Any] = rows[TOKENS].to_pylist()
        return words
    texts: list[Any] = rows[TEXT].to_pylist()
    return list(zip(texts, rows[PAIR].to_pylist(), strict=True)) if PAIR in rows.schema.names else texts


def encode(tokenizer: PreTrainedTokenizerBase, inputs: Sequence[Input], **options: Any) -> BatchEncoding:
    """Tokenise texts, or pairs; ``options`` are the tokenizer's. Of a pair that is too long the longer text is cut."""
    if inputs and isinstance(inputs[0], list):
        words: Any = list(inputs)
        options["is_split_into_words"] = True
        inputs_of_words: BatchEncoding = tokenizer(words, **options)
        return inputs_of_words
    pairs = [each for each in inputs if isinstance(each, tuple)]
    texts = [[first for first, _ in pairs], [second for _, second in pairs]] if pairs else [list(inputs)]
    encoded: BatchEncoding = tokenizer(*texts, **options)
    return encoded


def padding_before(tokenizer: PreTrainedTokenizerBase, padded: int, lengths: Sequence[int]) -> list[int]:
    """How many tokens of padding come before rows of these lengths in a batch that is ``padded`` tokens wide."""
    return [padded - length if tokenizer.padding_side == "left" else 0 for length in lengths]


def input_key(given: Input) -> bytes:
    """What an input is found again by: 16 bytes; two of 10^12 share them with a chance of about 10^-15."""
    if isinstance(given, list):
        person, told = b"words", " ".join(f"{len(word)} {word}" for word in given)
    else:
        person, told = (b"", given) if isinstance(given, str) else (b"pair", f"{len(given[0])} {given[0]}{given[1]}")
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16, person=person).digest()


def shown(given: Input) -> str:
    """An input as people read it."""
    return given if isinstance(given, str) else " ".join(given) if isinstance(given, list) else BETWEEN.join(given)
