"""What is measured of texts: lengths and words of any script, words that training never showed, word counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from flows.drift import texts
from flows.drift.texts import ELSEWHERE, HELD_OUT, INCOMING, TRAIN


@pytest.fixture
def database(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with texts.opened(tmp_path / "spill") as opened:
        yield opened


def add(database: duckdb.DuckDBPyConnection, side: str, path: Path, *rows: str | None) -> int:
    pq.write_table(pa.table({"text": pa.array(rows, pa.string())}), path / "rows.parquet")
    return texts.add(database, side, [path / "rows.parquet"], ds.scalar(True))


def test_lengths_are_of_characters_and_words_and_characters_without_blanks_are_words(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = ["A good film!", "这部电影很好", "good 电影, ok", "", "こんにちは", None]
    assert add(database, TRAIN, tmp_path, *rows) == 5
    characters, words = (texts.lengths(database, TRAIN, measure) for measure in ("characters", "words"))
    assert dict(zip(characters.values, characters.counts, strict=True)) == {0: 1, 5: 1, 6: 1, 11: 1, 12: 1}
    assert dict(zip(words.values, words.counts, strict=True)) == {0: 1, 3: 1, 4: 1, 5: 1, 6: 1}
    assert words.rows == 5
    assert [words.quantile(share) for share in (0.2, 0.21, 0.5, 1.0)] == [0, 3, 4, 6]


def test_words_are_unseen_only_if_no_training_row_of_any_group_has_them_in_any_form(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    add(database, TRAIN, tmp_path, "good film", "好 ＡＢＣ")
    add(database, ELSEWHERE, tmp_path, "stock")
    add(database, INCOMING, tmp_path, "GOOD stock", "坏 abc 好 x", "!!!")
    add(database, HELD_OUT, tmp_path, "good")
    found = texts.unseen(database, INCOMING)
    assert dict(zip(found.values, found.counts, strict=True)) == {0: 1, 0.5: 1}
    assert texts.unseen(database, HELD_OUT).values.tolist() == [0]


def test_word_counts_hold_each_text_of_training_and_log_and_the_rarer_words_together(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    add(database, TRAIN, tmp_path, "a a b", "", "a c")
    add(database, INCOMING, tmp_path, "b b d")
    found = texts.word_counts(database, words=2, most_rows=10, seed=13)
    assert (found.words, found.reference_rows) == (["a", "b"], 3)
    assert found.counts.toarray().tolist() == [[2, 1, 0], [0, 0, 0], [1, 0, 1], [0, 2, 1]]
    assert texts.word_counts(database, words=2, most_rows=2, seed=13).reference_rows == 2


def test_the_words_of_a_pair_are_those_of_both_texts_also_beside_parts_without_pairs(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": ["one two"]}), tmp_path / "a.parquet")
    pairs = {"text": ["one", "one"], "text_pair": pa.array(["two three", None], pa.string())}
    pq.write_table(pa.table(pairs), tmp_path / "b.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    assert texts.add(database, INCOMING, files, ds.scalar(True)) == 3
    found = texts.lengths(database, INCOMING, "words")
    assert dict(zip(found.values, found.counts, strict=True)) == {1: 1, 2: 1, 3: 1}
