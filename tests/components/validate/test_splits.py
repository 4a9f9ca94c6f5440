"""The rule of the splits that aren't given: seeded, stratified, whole documents, no text in two of them."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from components.params.data import Data
from components.validate.splits import place_rows

WITH_DOCUMENT = {"columns": {"text": "text", "label": "label", "group": "group", "document": "document"}}


def reviews(count: int, documents: int | None = None) -> list[dict[str, str]]:
    """Rows of three groups and two classes, one in four of them negative."""
    rows = []
    for number in range(count):
        row = {"text": f"评论{number}", "label": "neg" if number % 4 == 0 else "pos", "group": f"组{number % 3}"}
        rows.append(row | ({"document": f"文档{number % documents}"} if documents else {}))
    return rows


def place(folder: Any, data: Data) -> tuple[dict[tuple[str, int], str], list[str]]:
    """The split of each (source, row), those set aside as ``aside``; and which splits were made."""
    with folder.database(data) as database:
        made = place_rows(database, data)
        rows = database.sql(
            "SELECT source, row, CASE WHEN set_aside THEN 'aside' ELSE split END FROM placed"
        ).fetchall()
    return {(source, row): split for source, row, split in rows}, made


def test_given_splits_stay_as_they_are(folder: Any) -> None:
    for split in ("train", "validation", "test", "unlabelled"):
        folder.write_rows(split, reviews(2))
    placed, made = place(folder, folder.data())
    assert made == []
    assert all(source == split for (source, _), split in placed.items())
    assert len(placed) == 8


def test_shares_hold_in_every_stratum(folder: Any) -> None:
    rows = reviews(1200)
    folder.write_rows("train", rows)
    columns = {"columns": {"text": "text", "label": "label", "group": "group"}}
    placed, made = place(folder, folder.data(split={"validation": 0.1, "test": 0.2, "seed": 5}, **columns))
    assert made == ["test", "validation"]
    counts = Counter((rows[row]["label"], rows[row]["group"], split) for (_, row), split in placed.items())
    for group in ("组0", "组1", "组2"):
        assert [counts["neg", group, split] for split in ("train", "validation", "test")] == [70, 10, 20]
        assert [counts["pos", group, split] for split in ("train", "validation", "test")] == [210, 30, 60]


def test_the_seed_decides_and_the_order_of_the_rows_does_not(folder: Any) -> None:
    rows = reviews(300)
    shuffled = random.Random(1).sample(rows, len(rows))

    def held_out(rows: list[dict[str, str]], seed: int) -> set[str]:
        folder.write_rows("train", rows)
        placed, _ = place(folder, folder.data(split={"seed": seed}))
        return {rows[row]["text"] for (_, row), split in placed.items() if split == "test"}

    assert held_out(rows, 1) == held_out(rows, 1) == held_out(shuffled, 1)
    assert held_out(rows, 1) != held_out(rows, 2)


def test_documents_stay_whole(folder: Any) -> None:
    rows = reviews(900, documents=90)
    folder.write_rows("train", rows)
    placed, _ = place(folder, folder.data(**WITH_DOCUMENT))
    splits: dict[str, set[str]] = {}
    for (_, row), split in placed.items():
        splits.setdefault(rows[row]["document"], set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert Counter(next(iter(found)) for found in splits.values()).keys() == {"train", "validation", "test"}


@pytest.mark.parametrize("documents", [None, 40])
def test_forms_of_one_text_never_straddle_splits(folder: Any, documents: int | None) -> None:
    rows = reviews(200, documents)
    copies = [row | {"text": f" {row['text'].replace('1', '１')}！"} for row in rows[:20]]
    for number, copy in enumerate(copies):
        if documents:
            copy["document"] = f"另{number}"
    folder.write_rows("train", rows + copies)
    placed, _ = place(folder, folder.data(**(WITH_DOCUMENT if documents else {})))
    assert all(placed["train", row] == placed["train", 200 + row] for row in range(20))


def test_documents_linked_by_shared_texts_stay_together(folder: Any) -> None:
    chain = [{"text": f"链{n // 2}", "label": "pos", "group": "g", "document": f"d{(n + 1) // 2}"} for n in range(60)]
    folder.write_rows("train", chain + reviews(100, documents=50))
    placed, _ = place(folder, folder.data(**WITH_DOCUMENT))
    assert len({placed["train", row] for row in range(60)}) == 1


def test_rows_without_a_document_stand_alone(folder: Any) -> None:
    rows = [row | {"document": None} for row in reviews(600)]
    folder.write_rows("train", rows)
    placed, _ = place(folder, folder.data(**WITH_DOCUMENT))
    assert Counter(placed.values()) == {"train": 420, "validation": 60, "test": 120}


def test_a_single_split_is_made_beside_a_given_one(folder: Any) -> None:
    folder.write_rows("train", reviews(200))
    folder.write_rows("test", [{"text": "测试", "label": "pos"}])
    placed, made = place(folder, folder.data())
    assert made == ["validation"]
    assert Counter(placed.values()) == {"train": 180, "validation": 20, "test": 1}


def test_what_also_stands_in_a_given_split_is_not_held_out(folder: Any) -> None:
    rows = reviews(100)
    folder.write_rows("train", rows)
    folder.write_rows("test", [row | {"text": row["text"] + "！"} for row in rows[:50]])
    placed, _ = place(folder, folder.data())
    assert {placed["train", row] for row in range(50)} == {"train"}
    assert "validation" in {placed["train", row] for row in range(50, 100)}


def test_pool_rows_of_a_made_split_are_set_aside(folder: Any) -> None:
    rows = reviews(200, documents=50)
    folder.write_rows("train", rows)
    pool = [{"text": f"池{number}", "document": f"文档{number}"} for number in range(50)]
    folder.write_rows("unlabelled", [*pool, {"text": rows[0]["text"].upper()}, {"text": "新"}])
    placed, _ = place(folder, folder.data(**WITH_DOCUMENT))
    for number in range(50):
        kept = placed["train", number] == "train"
        assert placed["unlabelled", number] == ("unlabelled" if kept else "aside")
    assert placed["unlabelled", 51] == "unlabelled"
    assert "aside" in placed.values()


def test_rows_without_text_or_label_are_placed_too(folder: Any) -> None:
    folder.write_rows("train", [*reviews(10), {"text": None, "label": "pos"}, {"text": " ", "label": None}])
    placed, _ = place(folder, folder.data())
    assert len(placed) == 12
