"""Labels that come later: which rows count, what is told of the others, and files that can't be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from flows.drift import late
from flows.drift.said import Hits

LABELS = ["neg", "正"]


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Three rows: the first was scored twice, the newer time as 正."""
    with duckdb.connect() as made:
        made.execute(
            "CREATE TABLE mine AS SELECT *, NULL::VARCHAR AS text_pair FROM (VALUES ('1', 'a', 'neg', 1), "
            "('2', 'b', '正', 2), ('3', 'c', 'neg', 3), ('1', 'a', '正', 4), (NULL, 'd', '正', 5)) "
            "AS rows(id, text, label, scored_at)"
        )
        yield made


def test_pairs_are_found_by_both_texts(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    database.execute("UPDATE mine SET text = 'same', text_pair = scored_at::VARCHAR")
    found = late.match(database, write(tmp_path / "l.csv", "text,text_pair,label\nsame,2,正\nsame,3,正\n"), LABELS)
    assert (found.hits, found.key) == (Hits(1, 2), "text")
    with pytest.raises(UserError, match="expected the columns id or text and text_pair, and label"):
        late.match(database, write(tmp_path / "l.csv", "text,label\nsame,正\n"), LABELS)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_each_key_counts_once_and_the_newest_row_with_it(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    found = late.match(database, write(tmp_path / "l.csv", "id,label\n1,正\n1,正\n2,neg\n3,other\n9,neg\n"), LABELS)
    assert found.hits == Hits(1, 3)
    assert (found.key, found.given, found.unmatched, found.conflicting, found.unknown) == ("id", 4, 1, 0, 1)
    assert found.examples["unmatched"] == ["9"]


def test_conflicting_labels_of_a_row_count_for_nothing(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lines = [{"text": "b", "label": "正"}, {"text": "c", "label": "neg"}, {"text": "c", "label": "正"}]
    path = write(tmp_path / "l.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    found = late.match(database, path, LABELS)
    assert found.hits == Hits(1, 1)
    assert (found.key, found.conflicting, found.examples["conflicting"]) == ("text", 1, ["c"])


def test_a_file_that_names_no_logged_row_gives_no_accuracy(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "l.parquet"
    pq.write_table(pa.table({"id": [77, 78], "label": ["neg", "正"]}), path)
    found = late.match(database, path, LABELS)
    assert (found.hits, found.unmatched) == (None, 2)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.csv", "key,label\n1,neg\n", "id or text, and label; it has key, label"),
        ("l.csv", "id,label\n1,0\n2,1\n", "the labels neg, 正; it has 0, 1"),
        ("l.csv", "id,label\n", "no row has a label"),
        ("l.parquet", "no parquet", "can't be read"),
        ("l.xlsx", "", "expected one of .parquet"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    database: duckdb.DuckDBPyConnection, tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        late.match(database, write(tmp_path / name, text), LABELS)
