"""Which rows without labels a student learns from: those that the teacher is sure of, so many of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.params.phases import PseudoLabels

READ_ROWS = 65536
UNKNOWN = -1
"""The class of a row of which nothing is known, or that takes no part."""


@dataclass(frozen=True)
class Summary:
    """How many rows take part, and why the others don't; ``per_class`` counts those that do by predicted class."""

    rows: int
    kept: int
    unknown: int
    unsure: int
    over_the_cap: int
    per_class: list[int]

    def describe(self, labels: Sequence[str] | None = None) -> str:
        """One line for the log; ``labels`` are the names of the classes in order."""
        reasons = {
            "without logits": self.unknown,
            "below min_confidence": self.unsure,
            "beyond max_per_class": self.over_the_cap,
        }
        names = [str(index) for index in range(len(self.per_class))] if labels is None else labels
        classes = ", ".join(f"{name} {count:,}" for name, count in zip(names, self.per_class, strict=False))
        left_out = "".join(f"; {count:,} {reason}" for reason, count in reasons.items() if count)
        return f"pseudo-labels: {self.kept:,} of {self.rows:,} rows take part ({classes or 'none'}){left_out}"


@dataclass(frozen=True)
class Selection:
    """The rows without labels that take part.

    ``rows`` (int64, ascending) and ``classes`` (int32, the teacher's class of each) have shape (rows taken,).
    ``hard`` tells whether the class is what is learnt, instead of the logits.
    """

    rows: np.ndarray
    classes: np.ndarray
    hard: bool
    summary: Summary

    def takes(self, row: np.ndarray) -> np.ndarray:
        """Whether each of ``row`` (row numbers, in any order) takes part; bool of the same shape."""
        return self._find(row)[0]

    def label_of(self, row: np.ndarray) -> np.ndarray | None:
        """The class that each of ``row`` is to be trained on, int32 of the same shape; None unless ``hard``.

        ``UNKNOWN`` stands where a row takes no part.
        """
        if not self.hard:
            return None
        taken, place = self._find(row)
        labels = np.full(np.shape(row), UNKNOWN, dtype=np.int32)
        labels[taken] = self.classes[place[taken]]
        return labels

    def _find(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(self.rows):
            return np.zeros(np.shape(row), dtype=bool), np.zeros(np.shape(row), dtype=np.int64)
        place = np.searchsorted(self.rows, row).clip(max=len(self.rows) - 1)
        return np.asarray(self.rows[place] == row), place


def select(
    logits_folder: Path, settings: PseudoLabels, rows: np.ndarray | None = None, *, by_class: bool = True
) -> Selection:
    """Choose the rows of a folder of logits that take part in training.

    A row needs logits and a calibrated probability of at least ``settings.min_confidence``. Of each predicted
    class, the ``settings.max_per_class`` most certain rows stay; among equally certain ones those with the lower
    row number. So the choice depends on neither the shards nor their order. Takes some 20 bytes a row.

    Args:
        logits_folder: Parquet shards with ``row``, ``logits`` and ``confidence``, as the stage ``label`` writes them.
        settings: ``kind`` none takes no row.
        rows: choose among these row numbers only, such as those of a phase's groups; None chooses among all.
        by_class: whether a row has one class; otherwise all rows count as of one.
    """
    if settings.kind == "none":
        return _selection([], [], [], settings)
    parts = list(_read(logits_folder, rows, by_class))
    numbers, classes, confidence = ([part[column] for part in parts] for column in range(3))
    return _selection(numbers, classes, confidence, settings)


def _selection(
    numbers: list[np.ndarray], classes: list[np.ndarray], confidence: list[np.ndarray], settings: PseudoLabels
) -> Selection:
    row = np.concatenate([np.zeros(0, np.int64), *numbers])
    predicted = np.concatenate([np.zeros(0, np.int32), *classes])
    certainty = np.concatenate([np.zeros(0, np.float32), *confidence])
    known = predicted != UNKNOWN
    # The confidences are float32, and so is the threshold: one of exactly 0.9 is at least 0.9.
    sure = known & (certainty >= np.float32(settings.min_confidence))
    taken = np.sort(_capped(np.flatnonzero(sure), row, predicted, certainty, settings.max_per_class))
    taken = taken[np.argsort(row[taken], kind="stable")]
    summary = Summary(
        rows=len(row),
        kept=len(taken),
        unknown=int((~known).sum()),
        unsure=int((known & ~sure).sum()),
        over_the_cap=int(sure.sum()) - len(taken),
        per_class=np.bincount(predicted[taken], minlength=int(predicted.max(initial=UNKNOWN)) + 1).tolist(),
    )
    return Selection(row[taken], predicted[taken], settings.kind == "hard", summary)


def _capped(
    sure: np.ndarray, row: np.ndarray, predicted: np.ndarray, certainty: np.ndarray, cap: int | None
) -> np.ndarray:
    """Of the places ``sure``, at most ``cap`` of each class: the most certain, then the lowest row numbers."""
    if cap is None or not len(sure):
        return sure
    order = sure[np.lexsort((row[sure], -certainty[sure], predicted[sure]))]
    starts = np.flatnonzero(np.r_[True, np.diff(predicted[order]) != 0])
    lengths = np.diff(np.r_[starts, len(order)])
    rank = np.arange(len(order)) - np.repeat(starts, lengths)
    return np.asarray(order[rank < cap])


def _read(folder: Path, rows: np.ndarray | None, by_class: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Row numbers, predicted classes and confidences, a part at a time."""
    for shard in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(READ_ROWS, columns=["row", "logits", "confidence"]):
                number = batch["row"].to_numpy()
                chosen = np.ones(len(number), dtype=bool) if rows is None else np.isin(number, rows)
                confidence = batch["confidence"].to_numpy(zero_copy_only=False).astype(np.float32)
                yield number[chosen], _predicted(batch["logits"], by_class)[chosen], confidence[chosen]


def _predicted(logits: pa.Array, by_class: bool) -> np.ndarray:
    """The class with the largest logit of each row, int32, or 0; ``UNKNOWN`` where there are no logits."""
    known = logits.is_valid().to_numpy(zero_copy_only=False)
    predicted = np.full(len(logits), UNKNOWN, dtype=np.int32)
    if not by_class:
        predicted[known] = 0
    elif known.any():
        values = logits.flatten().to_numpy(zero_copy_only=False)  # skips the rows without logits
        predicted[known] = values.reshape(int(known.sum()), -1).argmax(axis=1)
    return predicted
