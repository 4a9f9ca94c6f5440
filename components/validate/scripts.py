"""Which scripts a text is written in, such as Latin, Han or Cyrillic."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter

_NAMES = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "IDEOGRAPHIC": "Han"}
_PART = 0.2
"""The least share of a script that a text is written in; fewer letters are a name or a quotation."""
_KANA = 0.1
"""The least share of kana in Japanese; a Chinese text may have one."""


def scripts_of(text: str) -> list[str]:
    """The scripts of at least a fifth of the letters, the main one first; none for a text without letters.

    Kanji and kana together are Japanese.
    """
    if text.isascii():
        return ["Latin"] if any(map(str.isalpha, text)) else []
    counts: Counter[str] = Counter()
    for character, times in Counter(text).items():
        if script := _script(character):
            counts[script] += times
    kana, both = counts["Kana"], counts["Kana"] + counts["Han"]
    del counts["Kana"]
    if kana >= max(1, _KANA * both):
        del counts["Han"]
        counts["Japanese"] = both
    elif kana:
        counts["Han"] = both
    least = max(1, counts.total() * _PART)
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return [script for script, letters in ordered if letters >= least]


@functools.lru_cache(maxsize=2**16)
def _script(character: str) -> str | None:
    """The first word of a letter's name in Unicode, whatever its width or font."""
    letter = unicodedata.normalize("NFKC", character)[:1]
    if not letter.isalpha():
        return None
    first = unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]
    return _NAMES.get(first, first.capitalize()) or None
