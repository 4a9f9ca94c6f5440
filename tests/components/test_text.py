"""Normalisation for duplicate checks and the marks of a damaged encoding."""

from __future__ import annotations

import pytest

from components.text import looks_damaged, normalise


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ｇｏｏｄ　ｐｈｏｎｅ！", "good phone"),
        ("这部手机，很好用！", "这部手机很好用"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("①号店", "1号店"),
        ("STRASSE", "straße"),
        ("cafe\u0301", "CAFÉ"),
        ("ﬁne", "Fine."),
    ],
)
def test_forms_of_the_same_text_are_equal(one: str, other: str) -> None:
    assert normalise(one) == normalise(other) != ""


@pytest.mark.parametrize(("one", "other"), [("好", "不好"), ("很好", "很壞"), ("हिन्दी", "हिनदी"), ("no 1", "no 2")])
def test_other_texts_stay_apart(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize("text", ["", "  \t\n", "!!! ...", "。，、", "😀"])
def test_a_text_without_letters_or_numbers_becomes_empty(text: str) -> None:
    assert normalise(text) == ""


def test_normalising_twice_changes_nothing() -> None:
    for code in range(0x20, 0x30000):
        if not 0xD800 <= code < 0xE000:
            once = normalise(f"a{chr(code)}\u0301字")
            assert normalise(once) == once, hex(code)


@pytest.mark.parametrize("text", ["café", "naïve – “great”", "它很好用", "привет", "γειά", "it’s 5 €", "😀👍", "größe"])
@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_utf8_read_as_another_encoding_is_damaged(text: str, wrong: str) -> None:
    letters = [bytes([byte]) for byte in text.encode()]
    read = "".join(letter.decode(wrong, errors="ignore") for letter in letters)
    assert looks_damaged(read)


@pytest.mark.parametrize("text", ["\ufffd", "好\ufffd用", "a\x00b", "a\x0bb", "\x1b[0m", "say \x93yes\x94"])
def test_replacement_and_control_characters_are_damage(text: str) -> None:
    assert looks_damaged(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plain text.\r\n\tNext line.",
        "Voilà…\xa0» dit-elle, «\xa0déjà\xa0».",
        "IRMÃ” AMANHÃ… ÇA VA",
        "„MENÜ“ für 5 €, 20 °C, ½ Liter",
        "这部手机，很好用！价格￥99",
        "ガラスのｶﾞﾗｽ",
        "Привет, мир… №5",
        "Γειά σου",
        "ÑANDÚ, AÑO, ¿Qué?",
        "한국어 문장",
        "😀👍🏽 ok",
    ],
)
def test_sound_text_is_not_damaged(text: str) -> None:
    assert not looks_damaged(text)
