"""Which word of its text each token belongs to, Chinese characters being words of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding

from components.errors import UserError

OUTSIDE = -1
"""The word of a token that belongs to none: special tokens."""
# The blocks that BERT's tokenizer takes apart, too.
CHINESE = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def word_ids_of(encoded: BatchEncoding, texts: Sequence[str]) -> list[list[int]]:
    """The number of each token's word within its text, ``OUTSIDE`` for special tokens; a list for each text.

    Words are those that the tokenizer cuts texts into before it cuts words into tokens; Chinese characters are
    words of their own, unless one token holds several of them.

    Args:
        encoded: what the tokenizer made of ``texts``.
        texts: the texts, each as one string.

    Raises:
        UserError: the tokenizer doesn't know words, since it is one of transformers' slow ones.
    """
    if not encoded.is_fast:
        raise no_words("mask.whole_words")
    return [_words(encoded[index], text) for index, text in enumerate(texts)]


def _words(encoding: Any, text: str) -> list[int]:
    words = [OUTSIDE if word is None else word for word in encoding.word_ids]
    if not CHINESE.search(text):
        return words
    numbered: list[int] = []
    count, before, chinese, end = -1, OUTSIDE, False, 0
    for word, (first, stop) in zip(words, encoding.offsets, strict=True):
        here = bool(CHINESE.search(text, first, stop))
        apart = (here or chinese) and first >= end  # tokens of bytes may share a character
        count += word != OUTSIDE and (word != before or apart)
        numbered.append(OUTSIDE if word == OUTSIDE else count)
        blank = not text[first:stop].strip()  # a token before the character that belongs to it
        before, chinese, end = word, here, len(text) if blank else stop
    return numbered


def no_words(what: str) -> UserError:
    """The error for a tokenizer that can't tell which word a token belongs to."""
    return UserError(
        f"{what} needs a tokenizer that knows which word each token belongs to; the base model's is a slow one.",
        "Save a fast tokenizer (tokenizer.json) beside the base model, or leave such phases out.",
        "parameters",
    )
