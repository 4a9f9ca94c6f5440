"""The log against the training: which tests are made, and from which rows each side comes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from components.errors import UserError
from components.params.monitoring import Monitoring
from flows.drift import said, shifts, texts
from flows.drift.said import Hits, Said
from flows.drift.shifts import Shift
from flows.drift.watched import TEST, VALIDATED, Predicted

WORDS, MOST_ROWS, SEED = 1000, 20_000, 13
"""The most frequent words are told apart; so many rows of a side are enough to tell their frequencies."""
_LEAST_RESAMPLES = 999
_MOST_TESTS = 7


@dataclass(frozen=True)
class Window:
    """The rows of the log that count: its files, the watched model's content, from when, until when."""

    files: Sequence[Path]
    content: str
    since: datetime
    until: datetime

    @property
    def rows(self) -> ds.Expression:
        """Which rows of the files these are."""
        times = [pa.scalar(time, pa.timestamp("us", "UTC")) for time in (self.since, self.until)]
        at = ds.field("at")
        return (ds.field("content") == self.content) & (at >= times[0]) & (at < times[1])


def of_group(group: str) -> ds.Expression:
    """The rows of a group, or ``all``."""
    return ds.scalar(True) if group == "all" else ds.field("group") == group


def of_texts(
    database: duckdb.DuckDBPyConnection, root: Path, group: str, window: Window, rules: Monitoring
) -> list[Shift]:
    """The tests of the incoming texts against the training's.

    Raises:
        UserError: no training row belongs to the group (``parameters``).
    """
    only, limits = of_group(group), rules.thresholds
    resamples = max(_LEAST_RESAMPLES, math.ceil(2 * _MOST_TESTS / rules.level))  # else p can't get below the level
    _read(database, root, group, only, window)
    found = [
        shifts.of_values(name, *_both(database, measure), limits.length)
        for name, measure in (("length in characters", "characters"), ("length in words", "words"))
        if limits.length is not None
    ]
    if limits.unseen_words is not None:
        held_out, incoming = (texts.unseen(database, side) for side in (texts.HELD_OUT, texts.INCOMING))
        sides, limit = (held_out, incoming), limits.unseen_words
        found.append(shifts.of_means("words unseen in training", *sides, limit, resamples, SEED))
    if limits.word_frequencies is not None:
        words = texts.word_counts(database, WORDS, MOST_ROWS, SEED)
        found.append(shifts.of_words("word frequencies", words, limits.word_frequencies, resamples, SEED))
    return found


def _read(database: duckdb.DuckDBPyConnection, root: Path, group: str, only: ds.Expression, window: Window) -> None:
    """All sides into the table ``texts``."""
    train = _shards(root / VALIDATED / "train")
    if not texts.add(database, texts.TRAIN, train, only):
        raise UserError(
            f"No training row belongs to the group '{group}' (monitoring.group).",
            "Name one that the data have, or all.",
            "parameters",
        )
    if group != "all":
        texts.add(database, texts.ELSEWHERE, train, ds.field("group").is_null() | (ds.field("group") != group))
    held_out = [shard for split in (TEST, VALIDATED / "validation") for shard in _shards(root / split)]
    texts.add(database, texts.HELD_OUT, held_out, only)
    texts.add(database, texts.INCOMING, window.files, window.rows)


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _both(database: duckdb.DuckDBPyConnection, measure: str) -> tuple[texts.Histogram, texts.Histogram]:
    return texts.lengths(database, texts.TRAIN, measure), texts.lengths(database, texts.INCOMING, measure)


def on_test_rows(root: Path, group: str, predicted: Predicted) -> Said:
    """What the model said of the test rows of a group."""
    today = said.labels_of(root / VALIDATED / "schema.json")
    return said.of_test_rows(predicted.path, predicted.labels, root / TEST, of_group(group), today)


def of_predictions(reference: Said, incoming: Said, rules: Monitoring) -> list[Shift]:
    """The tests of what the model says, against what it said of the test rows."""
    limits, found = rules.thresholds, []
    if limits.labels is not None:
        found.append(shifts.of_shares("predicted labels", reference.labels, incoming.labels, limits.labels))
    if limits.confidence is not None:
        found.append(shifts.of_values("confidence", reference.confidence, incoming.confidence, limits.confidence))
    return found


def of_hits(reference: Hits | None, incoming: Hits | None, rules: Monitoring) -> list[Shift]:
    """The test of the accuracy on labels that came later, if there are enough of them and both sides are known."""
    limit = rules.thresholds.accuracy
    if limit is None or reference is None or incoming is None or incoming.rows < rules.min_labels:
        return []
    return [shifts.of_accuracy("accuracy", reference, incoming, limit)]
