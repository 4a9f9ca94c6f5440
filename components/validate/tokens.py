"""Lengths in tokens of the base model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from components.ml.models.folders import no_tokenizer
from components.ml.rows.inputs import Input, encode


def token_counter(folder: Path, markers: Sequence[str] = ()) -> Callable[[Sequence[Input]], list[int]]:
    """A function from texts or pairs to their lengths in tokens, special tokens included, before any truncation.

    ``markers`` are tokens that a task adds to the vocabulary.

    Raises:
        UserError: the folder's tokenizer can't be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise no_tokenizer(folder, str(error).strip().splitlines()[0]) from None

    tokenizer.add_tokens(list(markers), special_tokens=True)

    def count(inputs: Sequence[Input]) -> list[int]:
        if not inputs:
            return []
        options = dict.fromkeys(("truncation", "return_attention_mask", "return_token_type_ids", "verbose"), False)
        encoded = encode(tokenizer, inputs, **options)
        return [len(ids) for ids in encoded["input_ids"]]

    return count
