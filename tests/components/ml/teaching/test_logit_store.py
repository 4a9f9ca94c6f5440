"""Stored logits: kept bit by bit, and never in the way, whatever happens to the files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from components.ml.rows.inputs import input_key
from components.ml.teaching import logit_store
from components.ml.teaching.logit_store import LogitStore, LogitTable, prune, teacher_key

CLASSES = 3
KEYS = [input_key(f"text {index} 好") for index in range(1200)]
LOGITS = np.random.default_rng(0).normal(size=(1200, CLASSES)).astype(np.float32)


def filled(folder: Path, name: str = "a") -> LogitStore:
    """A store that holds the first 700 keys."""
    store = LogitStore(folder, name, CLASSES)
    store.put(KEYS[:700], list(LOGITS[:700, None]))
    return store


def known(store: LogitStore, keys: Sequence[bytes] = KEYS) -> np.ndarray:
    """Which keys have logits."""
    return np.array([one is not None for one in store.get(keys)])


def values(store: LogitStore, keys: Sequence[bytes] = KEYS) -> np.ndarray:
    """The logits of those that have some, of shape (keys, classes)."""
    return np.concatenate([LOGITS[:0], *(one for one in store.get(keys) if one is not None)])


def test_logits_come_back_bit_by_bit_and_the_rest_is_missing(tmp_path: Path) -> None:
    filled(tmp_path).close()
    order = np.random.default_rng(1).permutation(1200)
    with LogitStore(tmp_path, "a", CLASSES) as store:
        keys = [KEYS[place] for place in order]
        found, logits = known(store, keys), store.get(keys)
        assert values(store, keys).tobytes() == LOGITS[order[found]].tobytes()
    assert (found == (order < 700)).all()
    assert all(one is None or (one.dtype == np.float32 and one.shape == (1, CLASSES)) for one in logits)


def test_rows_have_any_number_of_positions(tmp_path: Path) -> None:
    rows = [LOGITS[:1], LOGITS[1:5].copy(), LOGITS[5:8]]
    rows[1][2] = np.nan  # a position that was cut off
    with LogitStore(tmp_path, "a", CLASSES) as store:
        store.put(KEYS[:3], rows)
        found = store.get([KEYS[2], KEYS[9], KEYS[0], KEYS[1]])
    expected = [rows[2], None, rows[0], rows[1]]
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()


def test_what_was_put_is_there_though_the_process_ends_without_closing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with LogitStore(tmp_path, "a", CLASSES) as other:  # as another process would read it
        assert known(other).sum() == 700
    store.close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + np.random.default_rng(2).bytes(5000)])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.sqlite").write_bytes(content)
    with filled(tmp_path) as store:
        assert known(store).sum() == 700


def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path).close()
    path = tmp_path / "a.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + np.random.default_rng(3).bytes(len(whole) - 4096))  # the first page is sound
    with LogitStore(tmp_path, "a", CLASSES) as store:
        found = known(store)
        assert (values(store) == LOGITS[found]).all()
        store.put(KEYS, list(LOGITS[:, None]))
        assert known(store).all()
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE other (value)", "CREATE TABLE logits (key BLOB PRIMARY KEY, value BLOB)"]
)
def test_a_foreign_file_is_begun_anew(tmp_path: Path, statement: str) -> None:
    foreign = sqlite3.connect(tmp_path / "a.sqlite")
    foreign.execute(statement)
    foreign.commit()
    foreign.close()
    with filled(tmp_path) as store:
        assert known(store).sum() == 700


def test_an_entry_that_was_changed_counts_as_missing(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        assert store.table is not None
        with store.table.connection as connection:
            connection.execute("UPDATE logits SET value = (SELECT value FROM logits WHERE key = ?)", (KEYS[0],))
            connection.execute("UPDATE logits SET value = x'00' WHERE key = ?", (KEYS[1],))
        assert np.flatnonzero(known(store)).tolist() == [0]


def test_a_place_where_nothing_can_be_written_only_costs_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    with filled(tmp_path / "file") as store:
        assert store.get(KEYS) == [None] * 1200
    prune(tmp_path / "file", [])
    assert capsys.readouterr().out.count("can't be used") == 1


def test_a_full_disk_only_costs_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with filled(tmp_path) as store:
        assert store.table is not None
        store.table.connection.execute("PRAGMA max_page_count = 1")
        store.put(KEYS, list(LOGITS[:, None]))
        assert not known(store).any()
    assert "full" in capsys.readouterr().out
    with LogitStore(tmp_path, "a", CLASSES) as store:  # what was kept is sound
        assert known(store).sum() == 700


def test_a_table_asked_for_something_else_says_so(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"no database")
    with pytest.raises(sqlite3.DatabaseError):
        LogitTable(tmp_path / "table", CLASSES)


def test_the_stores_used_last_stay(tmp_path: Path) -> None:
    names = [f"{index:032x}" for index in range(8)]
    for age, name in enumerate(names):
        filled(tmp_path, name).close()
        os.utime(tmp_path / f"{name}.sqlite", ns=(10**18 - age, 10**18 - age))
    (tmp_path / "mine.sqlite").write_text("not ours")
    LogitStore(tmp_path, names[6], CLASSES).close()  # used again
    prune(tmp_path, [names[7]])
    kept = {path.stem for path in tmp_path.glob("*.sqlite")}
    assert kept == {names[7], names[6], *names[:3], "mine"}
    prune(tmp_path, names[:1], kept=1)
    assert {path.name for path in tmp_path.iterdir()} == {f"{names[0]}.sqlite", "mine.sqlite"}


def test_a_teacher_is_known_by_its_files_and_by_what_it_runs_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter").mkdir()
    for name in ("model.safetensors", "tokenizer.json", "adapter/adapter_config.json"):
        (tmp_path / name).write_text(name)
    facts = {"max_length": 32, "threads": 1}
    keys = [teacher_key(tmp_path, facts), teacher_key(tmp_path, facts | {"threads": 2})]
    for name in ("model.safetensors", "adapter/adapter_config.json"):
        (tmp_path / name).write_text("changed")
        keys.append(teacher_key(tmp_path, facts))
    monkeypatch.setattr(logit_store, "_machine", lambda: ["another processor"])
    keys.append(teacher_key(tmp_path, facts))
    assert len(set(keys)) == 5
    assert teacher_key(tmp_path, dict(reversed(facts.items()))) == keys[-1]
