"""Near-duplicates: the search finds what comparing every pair would find, whatever the order and the threads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from components.text import normalise
from components.validate.near import examples_of_near, find_near
from components.validate.shingles import shingles, words
from components.validate.splits import place_rows


def similarity(one: str, other: str) -> float:
    """By definition: shared shingles of all shingles; equal normalised texts are as similar as can be."""
    mine, others = set(shingles(words(one))), set(shingles(words(other)))
    equal = normalise(one) == normalise(other) and (normalise(one) or one == other)
    return 1.0 if equal else len(mine & others) / len(mine | others) if mine | others else 0.0


def search(folder: Any, pool: Sequence[str], test: Sequence[str], least: float | None) -> dict[int, tuple[int, float]]:
    """Pool row -> the test row that it is like, and how much."""
    folder.write_rows("train", [{"text": f"第{number}", "label": str(number % 2)} for number in range(40)])
    folder.write_rows("validation", [{"text": "另", "label": "0"}])
    folder.write_rows("test", [{"text": text, "label": "0"} for text in test])
    folder.write_rows("unlabelled", [{"text": text} for text in pool])
    data = folder.data()
    with folder.database(data) as database:
        place_rows(database, data)
        find_near(database, least, folder.root)
        left = {name for (name,) in database.execute("SHOW TABLES").fetchall()}
        assert left == {"measured", "placed", "near"}
        found = database.execute("SELECT row, like_row, similarity FROM near").fetchall()
    assert not list(folder.root.glob("*shingles*"))
    return {row: (like, alike) for row, like, alike in found}


def variants(rng: random.Random, vocabulary: Sequence[str], space: str, count: int) -> list[str]:
    """Texts of few sentences, changed here and there, so that similarities of all sizes come up."""
    bases = [rng.choices(vocabulary, k=rng.randint(0, 14)) for _ in range(max(2, count // 6))]
    texts = []
    for _ in range(count):
        text = list(rng.choice(bases))
        for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
            place = rng.randint(0, len(text))
            text[place : place + rng.randint(0, 1)] = rng.choices(vocabulary, k=rng.randint(0, 2))
        texts.append(space.join(text) + rng.choice(["", "!", "。"]))
    return texts


@pytest.mark.parametrize("least", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("script", ["latin", "chinese", "mixed"])
def test_the_search_finds_what_comparing_every_pair_finds(folder: Any, script: str, least: float) -> None:
    rng = random.Random(f"{script} {least}")
    vocabulary = {"latin": ["a", "bb", "c", "Dd", "e"], "chinese": [*"这部手机很"], "mixed": [*"好用", "ok ", "no "]}
    texts = variants(rng, vocabulary[script], " " if script == "latin" else "", 160)
    pool, test = texts[:90], texts[90:]
    found = search(folder, pool, test, least)
    expected = {}
    for row, text in enumerate(pool):
        likes = [similarity(text, other) if text.strip() and other.strip() else 0 for other in test]
        if max(likes) >= least:
            expected[row] = likes
    assert found.keys() == expected.keys()
    assert 0 < len(found) < len(pool)
    for row, (like, alike) in found.items():
        assert alike == pytest.approx(expected[row][like])
        assert alike >= least


def test_many_rounds_of_the_search_find_what_one_finds(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    texts = variants(rng, [*"这部手机很好用吗"], "", 200)
    once = search(folder, texts[:120], texts[120:], 0.6)
    monkeypatch.setattr("components.validate.near.FIRST_ROUND", 1)
    monkeypatch.setattr("components.validate.near.GROWTH", 2)
    assert search(folder, texts[:120], texts[120:], 0.6).keys() == once.keys()


def test_the_order_of_the_rows_decides_nothing(folder: Any) -> None:
    rng = random.Random(7)
    texts = variants(rng, ["很", "好", "用", "very ", "good "], "", 150)
    pool, test = texts[:100], texts[100:]
    first = {pool[row] for row in search(folder, pool, test, 0.5)}
    shuffled = rng.sample(pool, len(pool))
    second = {shuffled[row] for row in search(folder, shuffled, rng.sample(test, len(test)), 0.5)}
    assert first == second


def test_a_changed_word_in_a_long_text_is_near_and_in_a_short_one_is_not(folder: Any) -> None:
    long, short = [f"word{number}" for number in range(40)], ["this", "is", "good"]
    pool = [" ".join([text[0], "other", *text[2:]]) for text in (long, short)]
    found = search(folder, pool, [" ".join(long), " ".join(short)], 0.8)
    assert found == {0: (0, pytest.approx(36 / 40))}


def test_equal_texts_are_found_though_they_are_spaced_otherwise(folder: Any) -> None:
    found = search(folder, ["ok 5", "😀", "ok6", "　"], ["很好", "OK5", "😀", " "], 1.0)
    assert found == {0: (1, 1.0), 1: (2, 1.0)}


def test_without_a_similarity_or_a_pool_nothing_is_near(folder: Any) -> None:
    assert search(folder, ["很好用"], ["很好用"], None) == {}
    folder.write_rows("train", [{"text": f"第{number}", "label": str(number % 2)} for number in range(40)])
    (folder.root / "data/unlabelled.jsonl").unlink()
    with folder.database(folder.data()) as database:
        place_rows(database, folder.data())
        find_near(database, 0.8, folder.root)
        assert examples_of_near(database) == []


def test_pool_rows_that_are_set_aside_already_are_not_looked_at(folder: Any) -> None:
    folder.write_rows("train", [{"text": f"第{number}号手机很好用", "label": str(number % 2)} for number in range(60)])
    folder.write_rows("unlabelled", [{"text": f"第{number}号手机很好用！"} for number in range(60)])
    data = folder.data(split={"validation": 0.1, "test": 0.4})
    with folder.database(data) as database:
        place_rows(database, data)
        find_near(database, 0.99, folder.root)
        (aside,) = database.execute("SELECT count(*) FILTER (set_aside) FROM placed").fetchall()[0]
        near = database.execute("SELECT count(*) FROM near JOIN placed USING (row) WHERE source = 'unlabelled'")
        assert aside > 20
        assert near.fetchall() == [(0,)]


def test_an_example_shows_both_texts(folder: Any) -> None:
    folder.write_rows("train", [{"text": f"第{number}", "label": str(number % 2)} for number in range(40)])
    folder.write_rows("test", [{"text": "别的", "label": "0"}, {"text": "很好用，推荐！", "label": "0"}])
    folder.write_rows("unlabelled", [{"text": "不"}, {"text": "很好用。推荐"}])
    with folder.database(folder.data()) as database:
        place_rows(database, folder.data())
        find_near(database, 0.8, folder.root)
        (example,) = examples_of_near(database)
    assert example == {
        "row": 1,
        "text": "很好用。推荐",
        "similarity": 1.0,
        "like": {"source": "test", "row": 1, "text": "很好用，推荐！"},
    }
