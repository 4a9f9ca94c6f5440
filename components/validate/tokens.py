"""Lengths in tokens of the base model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from components.ml.models.folders import no_tokenizer


def token_counter(folder: Path) -> Callable[[Sequence[str]], list[int]]:
    """A function from texts to their lengths in tokens, special tokens included, before any truncation.

    Raises:
        UserError: the folder's tokenizer can't be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise no_tokenizer(folder, str(error).strip().splitlines()[0]) from None

    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        encoded = tokenizer(
            list(texts), truncation=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return [len(ids) for ids in encoded["input_ids"]]

    return count
