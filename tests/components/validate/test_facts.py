"""What the row-facts table says of each row, and the splits and counts made from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.ml.tasks.table import TASKS
from components.validate.canonical import layout
from components.validate.classes import known_names
from components.validate.database import connect
from components.validate.facts import (
    FACTS,
    compute_facts,
    groups_of_training,
    summary,
    write_facts,
    write_splits,
)
from components.validate.measure import measure
from components.validate.near import find_near
from components.validate.splits import place_rows

COLUMNS = {"text": "text", "label": "label", "group": "group", "document": "document"}
TASK, NAMES = TASKS["text-classification"], ["neg", "pos"]


def flagged(database: duckdb.DuckDBPyConnection, column: str) -> list[tuple[str, int]]:
    return database.sql(f"SELECT split, row FROM facts WHERE {column} ORDER BY split, row").fetchall()


@pytest.fixture
def facts(folder: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    rows = {
        "train": [
            {"text": "很好用！", "label": "pos", "group": "店", "document": "a"},
            {"text": "很好用", "label": "neg", "group": "店", "document": "a"},
            {"text": "很好用！", "label": "pos", "group": "网", "document": "b"},
            {"text": None, "label": "pos", "group": None, "document": None},
            {"text": " \t　", "label": "pos", "group": "店", "document": "c"},
            {"text": "ＯＫ 5", "label": None, "group": "店", "document": "d"},
            {"text": "😀", "label": "pos", "group": "店", "document": "d"},
            {"text": "😡", "label": "neg", "group": "店", "document": "d"},
            {"text": "cafÃ© and much more", "label": "neutral", "group": "店", "document": "d"},
            {"text": " ", "label": "pos", "group": "店", "document": "c"},
        ],
        "validation": [
            {"text": "ok5", "label": "pos", "group": "店", "document": "e"},
            {"text": "在测试", "label": "neg", "group": "店", "document": "f"},
        ],
        "test": [
            {"text": "在 测试。", "label": "neg", "group": "店", "document": "a"},
            {"text": "😀", "label": "pos", "group": "店", "document": "g"},
            {"text": " ", "label": "pos", "group": "店", "document": "h"},
        ],
        "unlabelled": [{"text": "在测试", "document": "e"}, {"text": "ＯＫ5"}, {"text": "新的"}],
    }
    for split, found in rows.items():
        folder.write_rows(split, found)
    with folder.facts(folder.data(columns=COLUMNS, labels=["neg", "pos"])) as database:
        yield database


@pytest.mark.parametrize(
    ("column", "rows"),
    [
        ("missing_text", [("train", 3)]),
        ("missing_label", [("train", 5)]),
        ("blank", [("test", 2), ("train", 4), ("train", 9)]),
        ("damaged", [("train", 8)]),
        ("unknown_label", [("train", 8)]),
        ("duplicate_exact", [("train", 2)]),
        ("duplicate", [("train", 1), ("train", 2)]),
        ("conflicting", [("train", 0), ("train", 1), ("train", 2)]),
        ("stands_in_test", [("train", 6), ("unlabelled", 0), ("validation", 1)]),
        ("stands_in_validation", [("train", 5), ("unlabelled", 0), ("unlabelled", 1)]),
        ("document_in_test", [("train", 0), ("train", 1)]),
        ("document_in_validation", [("unlabelled", 0)]),
        ("truncated", [("train", 8)]),
        ("set_aside", []),
        ("near_duplicate", []),
    ],
)
def test_each_fact_marks_its_rows_and_no_others(
    facts: duckdb.DuckDBPyConnection, column: str, rows: list[tuple[str, int]]
) -> None:
    assert flagged(facts, column) == rows


def test_groups_and_documents_that_are_missing_get_names(facts: duckdb.DuckDBPyConnection) -> None:
    found = facts.sql("SELECT \"group\", document FROM facts WHERE split = 'train' AND row = 3").fetchall()
    assert found == [("all", "row:train:3")]


def test_rows_that_cannot_be_learnt_from_are_not_in_the_splits(
    facts: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = write_splits(facts, TASK, NAMES, tmp_path)
    assert rows == {"train": 7, "validation": 2, "test": 3, "unlabelled": 3}
    train = pq.read_table(tmp_path / "train")
    assert train.schema.equals(layout(TASK))
    assert train.column("row").to_pylist() == [0, 1, 2, 4, 6, 7, 9]
    assert train.column("label").to_pylist() == [1, 0, 1, 1, 1, 0, 1]
    assert train.column("text").to_pylist()[0] == "很好用！"
    assert groups_of_training(facts) == ["店", "网"]


def test_the_pool_has_no_labels_and_its_own_documents(facts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_splits(facts, TASK, NAMES, tmp_path)
    pool = pq.read_table(tmp_path / "unlabelled").to_pydict()
    assert pool["label"] == [None, None, None]
    assert pool["document"] == ["e", "row:unlabelled:1", "row:unlabelled:2"]
    assert pool["group"] == ["all", "all", "all"]


def test_without_a_pool_one_shard_without_rows_is_written(folder: Any, tmp_path: Path) -> None:
    folder.write_rows("train", [{"text": f"文{n}", "label": str(n % 2)} for n in range(40)])
    with folder.facts(folder.data()) as database:
        assert write_splits(database, TASK, ["0", "1"], tmp_path)["unlabelled"] == 0
    (shard,) = (tmp_path / "unlabelled").iterdir()
    assert pq.read_table(shard).schema.equals(layout(TASK))


def test_facts_are_written_by_split_and_row(facts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_facts(facts, tmp_path / "facts")
    table = pq.read_table(tmp_path / "facts")
    assert table.schema.equals(FACTS)
    assert table.column("split").to_pylist() == ["train"] * 10 + ["validation"] * 2 + ["test"] * 3 + ["unlabelled"] * 3
    assert table.column("row").to_pylist() == [*range(10), 0, 1, 0, 1, 2, 0, 1, 2]


def test_pool_rows_that_nearly_repeat_a_test_row_are_not_used(folder: Any) -> None:
    folder.write_rows("train", [{"text": f"第{number}", "label": str(number % 2)} for number in range(40)])
    folder.write_rows("test", [{"text": "这部手机很好用", "label": "0"}])
    folder.write_rows("unlabelled", [{"text": "这部手机很好用吗"}, {"text": "这部车很贵"}, {"text": "这部手机很好用"}])
    for near, left_out in ((0.8, [0, 2]), (0.9, [2]), (None, [])):
        with folder.facts(folder.data(), near=near) as database:
            assert flagged(database, "near_duplicate") == [("unlabelled", row) for row in left_out]
            unused = database.sql("SELECT row FROM facts WHERE NOT used ORDER BY row").fetchall()
            assert unused == [(row,) for row in left_out]
            assert summary(database, 10)["near_duplicates"]["unlabelled"] == len(left_out)


def test_the_summary_counts_classes_groups_and_lengths(facts: duckdb.DuckDBPyConnection) -> None:
    found = summary(facts, max_length=10)
    assert found["rows"] == {"train": 10, "validation": 2, "test": 3, "unlabelled": 3}
    assert found["used"]["train"] == 7
    assert found["classes"]["test"] == {"neg": 1, "pos": 2}
    assert found["groups"]["train"] == {"all": 1, "店": 8, "网": 1}
    assert sum(found["tokens"]["bins"]["train"].values()) == 10
    assert found["tokens"]["max"]["train"] == len("cafÃ© and much more")


def test_labels_not_named_are_those_of_the_training_file_in_order(folder: Any) -> None:
    folder.write_rows("train", [{"text": "a", "label": "正"}, {"text": "b", "label": "负"}, {"text": "c"}])
    with folder.database(folder.data()) as database:
        assert known_names(database, folder.data()) == sorted(["正", "负"])
        assert known_names(database, folder.data(labels=["负", "正"])) == ["负", "正"]


@pytest.mark.parametrize(("labels", "words"), [(["x"], "only 1 different"), (range(1001), "more than 1000 different")])
def test_a_label_column_that_holds_no_classes_is_refused(folder: Any, labels: Any, words: str) -> None:
    folder.write_rows("train", [{"text": str(label), "label": label} for label in labels])
    with folder.database(folder.data()) as database, pytest.raises(UserError, match=words):
        known_names(database, folder.data())


def test_the_number_of_threads_changes_no_byte(folder: Any) -> None:
    rows = [
        {
            "text": f"{'好差'[number % 2]}{number * 7919 % 9000}",
            "label": "好差"[number % 3 % 2],
            "group": f"组{number % 7}",
            "document": f"d{number * 31 % 4000}",
        }
        for number in range(12_000)
    ]
    folder.write_rows("train", rows)
    folder.write_rows("unlabelled", rows[::5])
    data, target = folder.data(columns=COLUMNS), folder.root / "measured.parquet"
    measure(data, folder.root, lambda texts: [len(text) for text in texts], target)
    pq.write_table(pq.read_table(target), target, row_group_size=500)  # parts for all threads

    def results(threads: int) -> tuple[list[bytes], object]:
        output = folder.root / f"{threads} threads"
        with connect(target, folder.root / "spill", threads) as database:
            assert database.execute("SELECT current_setting('threads')").fetchall() == [(threads,)]
            names = known_names(database, data)
            place_rows(database, data)
            find_near(database, 0.8, folder.root)
            compute_facts(database, names, 5)
            write_facts(database, output / "facts")
            write_splits(database, TASK, names, output)
            told = (names, groups_of_training(database), summary(database, 5))
        return [path.read_bytes() for path in sorted(output.rglob("*.parquet"))], told

    assert results(1) == results(4)
