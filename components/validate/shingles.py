"""Words and shingles of a text: what two texts must largely share to be near-duplicates."""

from __future__ import annotations

import unicodedata

LENGTH = 3
# Scripts that put no spaces between words, by how the names of their characters begin.
_UNSPACED = (
    *("CJK UNIFIED", "CJK COMPATIBILITY", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI ", "TANGUT", "NUSHU"),
    *("THAI", "LAO", "KHMER", "MYANMAR", "TAI ", "NEW TAI", "JAVANESE", "BALINESE"),
)


class _SpacedOut(dict[int, str]):
    """A table for ``str.translate``: letters, marks and numbers stay, the rest are spaces between words."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] not in "LMN":
            spaced = " "
        else:
            unspaced = unicodedata.name(character, "").startswith(_UNSPACED)
            spaced = f" {character} " if unspaced else character
        self[code] = spaced
        return spaced


_SPACED = _SpacedOut()


def words(text: str) -> list[str]:
    """The words of a text, in the form in which duplicates are looked for (NFKC, case-folded, no punctuation).

    In scripts that put no spaces between words, such as Chinese, Japanese and Thai, each character is a word.
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_SPACED).split()


def shingles(found: list[str]) -> list[str]:
    """The different runs of three consecutive words; all words as one run where there are fewer, none of none."""
    if len(found) < LENGTH:
        return [" ".join(found)] if found else []
    return list(dict.fromkeys(map(" ".join, zip(*(found[start:] for start in range(LENGTH)), strict=False))))
