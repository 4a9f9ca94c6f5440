"""Which script a text is mainly written in, and rows of another one than the training rows'."""

from __future__ import annotations

from typing import Any

import pytest

from components.validate.scripts import scripts_of


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("abc, déjà vu", ["Latin"]),
        ("ＡＢＣ", ["Latin"]),
        ("这部 phone 很好用", ["Han", "Latin"]),
        ("这部手机的屏幕真的很好用，推荐给大家 ok", ["Han"]),
        ("这部手机的广告の词很多很多", ["Han"]),  # one kana is no Japanese
        ("これは本です", ["Japanese"]),
        ("ｶﾀｶﾅ", ["Japanese"]),
        ("Привет", ["Cyrillic"]),
        ("مرحبا", ["Arabic"]),
        ("नमस्ते", ["Devanagari"]),
        ("한국어", ["Hangul"]),
        ("123 !? 😀", []),
        ("", []),
    ],
)
def test_scripts_of_a_considerable_part_of_the_letters_count_the_main_one_first(text: str, scripts: list[str]) -> None:
    assert scripts_of(text) == scripts


def flagged(database: Any) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = database.execute(
        "SELECT split, row FROM facts WHERE other_script ORDER BY split, row"
    ).fetchall()
    return found


def test_rows_in_a_script_that_training_rows_hardly_have_are_marked(folder: Any) -> None:
    train = [{"text": f"text {number}", "label": str(number % 2)} for number in range(200)]
    train[0]["text"], train[1]["text"], train[2]["text"] = "好", "Привет", "нет"
    folder.write_rows("train", train)
    folder.write_rows("test", [{"text": text, "label": "0"} for text in ("好的", "привет", "good", "5")])
    folder.write_rows("unlabelled", [{"text": "很好"}, {"text": "fine"}])
    with folder.facts(folder.data(validation="data/test.jsonl")) as database:
        # 1 of 200 training rows is in Han, 2 are in Cyrillic
        assert flagged(database) == [("test", 0), ("unlabelled", 0), ("validation", 0)]


def test_a_script_that_training_rows_are_partly_written_in_is_none_of_the_others(folder: Any) -> None:
    folder.write_rows("train", [{"text": f"phone {n} 很好", "label": str(n % 2)} for n in range(40)])
    folder.write_rows("test", [{"text": text, "label": "0"} for text in ("手机很好", "я")])
    with folder.facts(folder.data(validation="data/test.jsonl")) as database:
        assert flagged(database) == [("test", 1), ("validation", 1)]


def test_training_rows_without_letters_call_no_script_another(folder: Any) -> None:
    folder.write_rows("train", [{"text": str(number), "label": str(number % 2)} for number in range(40)])
    folder.write_rows("test", [{"text": "好的", "label": "0"}])
    with folder.facts(folder.data()) as database:
        assert flagged(database) == []
