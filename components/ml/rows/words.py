"""Which word of its text each token belongs to, Chinese characters being words of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.rows.inputs import Input
from components.text import CHINESE_CHARACTER

OUTSIDE = -1
"""The word of a token that belongs to none: special tokens."""
CHINESE = re.compile(CHINESE_CHARACTER)


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
    return [
        _words(encoded[index], (each,) if isinstance(each, str) else tuple(each)) for index, each in enumerate(inputs)
    ]


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


def spaced_words(tokenizer: PreTrainedTokenizerBase, rows: Sequence[list[str]]) -> list[list[str]]:
    """Rows of words in the form in which this tokenizer, given them one by one, makes the tokens of a running text.

    Raises:
        UserError: the tokenizer doesn't know words.
    """
    if not tokenizer.is_fast:
        raise no_words("token-classification")
    return [_spaced(words) for words in rows] if _reads_blanks(tokenizer) else [list(words) for words in rows]


def _reads_blanks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether words given one by one need the blank before them to be the tokens that they are in a text."""
    text, plain, blank = (
        tokenizer(one, is_split_into_words=isinstance(one, list), add_special_tokens=False)["input_ids"]
        for one in ("a a", ["a", "a"], ["a", " a"])
    )
    return bool(plain != text and blank == text)


def _spaced(words: list[str]) -> list[str]:
    """Words with a blank before them, but for the first, and between Chinese characters."""
    return [
        f" {word}" if word and before and not (CHINESE.match(word) and CHINESE.match(before[-1])) else word
        for word, before in zip(words, ["", *words], strict=False)
    ]


def no_words(what: str) -> UserError:
    """The error for a tokenizer that can't tell which word a token belongs to."""
    return UserError(
        f"{what} needs a tokenizer that knows which word each token belongs to; the base model's is a slow one.",
        "Save a fast tokenizer (tokenizer.json) beside the base model, or leave such phases out.",
        "parameters",
    )
