"""The evidence of the gate: two models' predictions on the same test rows become one difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.ml.statistics import bootstrap
from components.ml.statistics.mcnemar import McNemar, mcnemar
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task
from components.params.stages import Bootstrap
from flows.tracking.headline import ACCURACY

ALL = "all"
COLUMNS = ["row", "label", "prediction", "group", "document"]


@dataclass(frozen=True)
class Predicted:
    """A model's predictions on the test rows: integer arrays of shape (rows,), and the groups' names by code.

    ``labels`` and ``predictions`` are lists where rows have no one class; ``names`` are those of the classes.
    """

    rows: np.ndarray
    labels: Any
    predictions: Any
    documents: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    task: Task = TASKS[DEFAULT]
    names: Sequence[str] = ()

    @property
    def accuracy(self) -> float:
        """The task's headline on all rows, which is the accuracy where a row has one class."""
        if self.task.headline == ACCURACY:
            return float(np.mean(self.predictions == self.labels))
        counts = self.task.counts(self.labels, self.predictions, self.names)
        return float(self.task.scores(counts.sum(axis=0), self.names)[self.task.headline.key])


@dataclass(frozen=True)
class Pair:
    """The challenger against the champion: headline less headline, accuracies and the like as shares.

    ``difference``, its interval ``ci`` and ``mcnemar`` (the challenger first) are on the group that both are compared
    on, ``groups`` holds the differences on each other group. ``mcnemar`` is about rows that are right as a whole, None
    where rows are only more or less right. Where the headline isn't the share of such rows, ``differing`` is the number
    of documents on which the two differ.
    """

    difference: float
    ci: tuple[float, float]
    confidence: float
    mcnemar: McNemar | None
    rows: int
    documents: int
    groups: Mapping[str, float]
    differing: int | None = None


def read_predictions(path: Path, task: Task = TASKS[DEFAULT], class_names: Sequence[str] = ()) -> Predicted:
    """What ``evaluate`` wrote of one model, in the test rows' order; documents and groups as codes."""
    table = pq.read_table(path, columns=COLUMNS, read_dictionary=["group", "document"])
    names, groups = _codes(table["group"])
    return Predicted(
        rows=table["row"].to_numpy(),
        labels=_values(table["label"], task),
        predictions=_values(table["prediction"], task),
        documents=_codes(table["document"])[1],
        groups=groups,
        group_names=names,
        task=task,
        names=class_names,
    )


def _values(column: pa.ChunkedArray, task: Task) -> Any:
    return column.to_numpy() if task.classes_per_row else column.to_pylist()


def _codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The names of a dictionary column, and the place of each row's name among them."""
    chunks = column.unify_dictionaries().chunks
    names = chunks[0].dictionary.to_pylist() if chunks else []
    indices = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
    return names, np.concatenate(indices) if indices else np.zeros(0, dtype=np.int32)


def compare(challenger: Predicted, champion: Any, group: str, settings: Bootstrap) -> Pair | None:
    """Both models on the rows of a group, or on ``all``; None where no test row belongs to the group.

    Every resample draws whole documents, the same ones for both models, so the difference is paired.

    Args:
        challenger: the new model's predictions.
        champion: the old model's, in the same order and form.
        group: where to compare.
        settings: of the bootstrap.
    """
    if group != ALL and group not in challenger.group_names:
        return None
    both = _Both(challenger, champion)
    chosen = _rows_of(challenger, group)
    documents = challenger.documents[chosen]
    count = len(np.unique(documents))
    first, second = both.draws(chosen, documents, settings)
    # One document says nothing about other documents: every draw would be the same, and look certain.
    interval = bootstrap.percentile_interval(first - second, settings.confidence) if count > 1 else (-1.0, 1.0)
    return Pair(
        difference=both.difference(chosen),
        ci=interval,
        confidence=settings.confidence,
        mcnemar=both.mcnemar(chosen),
        rows=int(chosen.sum()),
        documents=count,
        groups={
            name: both.difference(rows)
            for name in sorted(challenger.group_names)
            if name != group and (rows := _rows_of(challenger, name)).any()
        },
        differing=both.differing(chosen, documents),
    )


class _Both:
    """Two models on the same rows, the challenger first.

    Where the headline is the share of rows that are right, which rows are says all; else ``counts`` holds what the
    headline is summed up from, of shape (rows, k) each.
    """

    def __init__(self, challenger: Predicted, champion: Any) -> None:
        self.task, self.names = challenger.task, challenger.names
        both = (challenger.predictions, champion)
        right = [self.task.right(challenger.labels, each) for each in both]
        self.right = [each for each in right if each is not None]
        self.counts = None
        if self.task.headline != ACCURACY:
            self.counts = [self.task.counts(challenger.labels, each, self.names) for each in both]

    def difference(self, rows: np.ndarray) -> float:
        """Headline less headline; what is no difference is none to the bit, of whole rows or of the same counts."""
        if self.counts is None:
            new, old = (int(each[rows].sum()) for each in self.right)
            return float((new - old) / rows.sum())
        first, second = (float(self._score(each[rows].sum(axis=0))) for each in self.counts)
        return first - second

    def draws(self, rows: np.ndarray, documents: np.ndarray, settings: Bootstrap) -> np.ndarray:
        """Both headlines on the bootstrap's draws of the rows' documents, of shape (2, resamples)."""
        how = settings.resamples, settings.seed
        if self.counts is None:
            return bootstrap.resample_accuracy(documents, [each[rows] for each in self.right], *how)
        return bootstrap.resample_scores(documents, [each[rows] for each in self.counts], self._score, *how)

    def mcnemar(self, rows: np.ndarray) -> McNemar | None:
        """The test on these rows; None where rows are only more or less right."""
        return mcnemar(*(each[rows] for each in self.right)) if self.right else None

    def differing(self, rows: np.ndarray, documents: np.ndarray) -> int | None:
        """How many documents have rows of which other things are counted; None where McNemar's test is enough."""
        if self.counts is None:
            return None
        new, old = (each[rows] for each in self.counts)
        unlike = np.asarray((new != old).sum(axis=1)).reshape(-1) > 0  # counts may be sparse
        return len(np.unique(documents[unlike]))

    def _score(self, sums: np.ndarray) -> np.ndarray:
        return self.task.scores(sums, self.names)[self.task.headline.key]


def _rows_of(predicted: Predicted, group: str) -> np.ndarray:
    if group == ALL:
        return np.ones(len(predicted.labels), dtype=bool)
    return np.asarray(predicted.groups == predicted.group_names.index(group))
