"""Which word of its text each token belongs to, Chinese characters being words of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding

from components.errors import UserError
from components.ml.rows.inputs import Input

OUTSIDE = -1
"""The word of a token that belongs to none: special tokens."""
# The blocks that BERT's tokenizer takes apart, too.
CHINESE = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def word_ids_of(encoded: BatchEncoding, inputs: Sequence[Input]) -> list[list[int]]:
    """The number of each token's word within its text, ``OUTSIDE`` for special tokens; a list for each text or pair.

    Words are those that the tokenizer cuts texts into before it cuts words into tokens; Chinese characters are
    words of their own, unless one token holds several of them.

    Args:
        encoded: what the tokenizer made of ``inputs``.
        inputs: the texts, each as one string, or the pairs; the second text's words are counted on.

    Raises:
        UserError: the tokenizer doesn't know words, since it is one of transformers' slow ones.
    """
    if not encoded.is_fast:
        raise no_words("mask.whole_words")
    return [_words(encoded[index], (each,) if isinstance(each, str) else each) for index, each in enumerate(inputs)]


def _words(encoding: Any, texts: tuple[str, ...]) -> list[int]:
    sequences, found = encoding.sequence_ids, encoding.word_ids
    before_second = max((word for word, of in zip(found, sequences, strict=True) if of == 0), default=OUTSIDE) + 1
    starts = (0, before_second)
    words = [OUTSIDE if word is None else word + starts[of or 0] for word, of in zip(found, sequences, strict=True)]
    if not any(CHINESE.search(text) for text in texts):
        return words
    numbered: list[int] = []
    count, before, chinese, end, sequence = -1, OUTSIDE, False, 0, 0
    for word, (first, stop), of in zip(words, encoding.offsets, sequences, strict=True):
        if of is not None and of != sequence:
            before, chinese, end, sequence = OUTSIDE, False, 0, of
        text = texts[sequence]
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
