"""Words and shingles of texts in any script."""

from __future__ import annotations

import pytest

from components.text import normalise
from components.validate.shingles import shingles, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ｔhe  quick, brown-fox!", ["the", "quick", "brown", "fox"]),
        ("这部手机OK，5号", ["这", "部", "手", "机", "ok", "5", "号"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ひらカナ", ["ひ", "ら", "カ", "ナ"]),
        ("สวย", ["ส", "ว", "ย"]),
        (" …😀", []),
    ],
)
def test_words_are_spaced_ones_or_characters_of_scripts_without_spaces(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_words_hold_the_same_characters_as_the_normalised_text() -> None:
    for text in ("Straße, ﬁn 5½!", "这部ｶﾀｶﾅ手机…OK？", "naïve e\u0301tude", "ภาษาไทย", "Ελληνικά — και"):
        assert normalise("".join(words(text))) == normalise(text)


def test_shingles_are_the_different_runs_of_three_words() -> None:
    assert shingles(["a", "b", "c", "d"]) == ["a b c", "b c d"]
    assert shingles(["a"] * 9) == ["a a a"]
    assert shingles(["a", "b", "c"]) == ["a b c"]


def test_a_text_of_one_or_two_words_is_one_shingle() -> None:
    assert shingles(["a", "b"]) == ["a b"]
    assert shingles(["a"]) == ["a"]
    assert shingles([]) == []
