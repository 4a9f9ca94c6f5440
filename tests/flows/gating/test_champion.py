"""The champion is scored once for each test set, out of core, and recalled afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.gating import champion
from flows.gating.champion import Scored, score
from flows.tracking.predictor import Predict

LABELS = ["negative", "正面"]


@dataclass
class Model:
    """A champion that finds a text's class in its last character; what it was asked."""

    labels: list[str] = field(default_factory=lambda: list(LABELS))
    batches: list[int] = field(default_factory=list)
    loaded: int = 0
    broken: bool = False

    @contextlib.contextmanager
    def load(self) -> Iterator[Predict]:
        self.loaded += 1
        yield self.predict

    def predict(self, texts: Sequence[Any]) -> tuple[list[str], np.ndarray]:
        if texts:
            self.batches.append(len(texts))
        if self.broken and len(self.batches) > 1:
            raise RuntimeError("broken")
        logits = np.zeros((len(texts), len(self.labels)))
        for row, text in enumerate(texts):
            logits[row, self.labels.index(LABELS[int(text[-1])])] = 1.0
        return self.labels, logits


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty test rows in two shards, read ten at a time."""
    monkeypatch.setattr(champion, "ROWS_AT_ONCE", 10)
    folder = tmp_path / "test"
    folder.mkdir()
    for shard, (first, last) in enumerate([(0, 17), (17, 30)]):
        rows = list(range(first, last))
        table = pa.table({"row": rows, "text": [f"文 {row * 7 % 3 % 2}" for row in rows], "label": rows})
        pq.write_table(table, folder / f"part-0000{shard}.parquet")
    return folder


def ask(
    shards: Path, model: Model, identity: Sequence[str] = ("content", "test"), told: list[int] | None = None
) -> Scored:
    said = [] if told is None else told
    return score(shards.parent / "cache", identity, shards, LABELS, model.load, lambda done, total: said.append(done))


def test_every_row_is_scored_in_order_and_never_all_at_once(shards: Path) -> None:
    model, told = Model(), list[int]()
    found = ask(shards, model, told=told)
    assert found.rows is not None
    assert found.predictions is not None
    assert list(found.rows) == list(range(30))
    assert list(found.predictions) == [row * 7 % 3 % 2 for row in range(30)]
    assert max(model.batches) <= 10
    assert told[-1] == 30


def test_what_was_scored_is_recalled_and_another_test_set_or_champion_is_not(shards: Path) -> None:
    model = Model()
    first, again = ask(shards, model), ask(shards, model)
    assert model.loaded == 1
    assert np.array_equal(first.predictions, again.predictions)
    ask(shards, model, ("content", "other rows"))
    ask(shards, model, ("other content", "test"))
    assert model.loaded == 3


def test_labels_in_another_order_are_todays(shards: Path) -> None:
    expected = ask(shards, Model()).predictions
    turned = ask(shards, Model(labels=LABELS[::-1]), ("turned", "test"))
    assert np.array_equal(turned.predictions, expected)
    assert turned.labels == LABELS[::-1]


@pytest.mark.parametrize("labels", [["negative"], ["negative", "正面", "neutral"], ["bad", "good"]])
def test_other_labels_are_told_without_scoring(shards: Path, labels: list[str]) -> None:
    model = Model(labels=labels)
    assert ask(shards, model) == Scored(labels)
    assert model.batches == []
    assert not list((shards.parent / "cache").glob("*"))


def test_damaged_logits_are_made_again(shards: Path) -> None:
    model = Model()
    first = ask(shards, model)
    (kept,) = (shards.parent / "cache").glob("*.parquet")
    kept.write_bytes(kept.read_bytes()[:200])
    assert np.array_equal(ask(shards, model).predictions, first.predictions)
    assert model.loaded == 2


def test_a_champion_that_fails_half_way_leaves_nothing(shards: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        ask(shards, Model(broken=True))
    assert not list((shards.parent / "cache").glob("*"))
    assert ask(shards, Model()).predictions is not None


def test_only_the_logits_used_last_are_kept_and_leftovers_go(shards: Path) -> None:
    cache = shards.parent / "cache"
    for number in range(champion.KEPT + 2):
        ask(shards, Model(), (f"content {number}", "test"))
        for path in cache.glob("*.parquet"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert len(list(cache.glob("*.parquet"))) == champion.KEPT
    newest = Model()
    ask(shards, newest, (f"content {champion.KEPT + 1}", "test"))
    assert newest.loaded == 0
    (cache / "new-left").mkdir()
    (cache / "new-at-work").mkdir()
    os.utime(cache / "new-left", (0, 0))
    ask(shards, Model(), ("one more", "test"))
    assert [path.name for path in cache.glob("new-*")] == ["new-at-work"]
