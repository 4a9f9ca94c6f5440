"""The evidence of the gate: two models' predictions on the same test rows become one difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.ml.statistics import bootstrap
from components.ml.statistics.mcnemar import McNemar, mcnemar
from components.params.stages import Bootstrap

ALL = "all"
COLUMNS = ["row", "label", "prediction", "group", "document"]


@dataclass(frozen=True)
class Predicted:
    """A model's predictions on the test rows: integer arrays of shape (rows,), and the groups' names by code."""

    rows: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    documents: np.ndarray
    groups: np.ndarray
    group_names: list[str]

    @property
    def accuracy(self) -> float:
        """On all rows."""
        return float(np.mean(self.predictions == self.labels))


@dataclass(frozen=True)
class Pair:
    """The challenger against the champion: accuracy less accuracy, as shares.

    ``difference``, its interval ``ci`` and ``mcnemar`` (the challenger first) are on the group that both are compared
    on, ``groups`` holds the differences on each other group.
    """

    difference: float
    ci: tuple[float, float]
    confidence: float
    mcnemar: McNemar
    rows: int
    documents: int
    groups: Mapping[str, float]


def read_predictions(path: Path) -> Predicted:
    """What ``evaluate`` wrote of one model, in the test rows' order; documents and groups as codes."""
    table = pq.read_table(path, columns=COLUMNS, read_dictionary=["group", "document"])
    names, groups = _codes(table["group"])
    return Predicted(
        rows=table["row"].to_numpy(),
        labels=table["label"].to_numpy(),
        predictions=table["prediction"].to_numpy(),
        documents=_codes(table["document"])[1],
        groups=groups,
        group_names=names,
    )


def _codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The names of a dictionary column, and the place of each row's name among them."""
    chunks = column.unify_dictionaries().chunks
    names = chunks[0].dictionary.to_pylist() if chunks else []
    indices = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
    return names, np.concatenate(indices) if indices else np.zeros(0, dtype=np.int32)


def compare(challenger: Predicted, champion: np.ndarray, group: str, settings: Bootstrap) -> Pair | None:
    """Both models on the rows of a group, or on ``all``; None where no test row belongs to the group.

    Every resample draws whole documents, the same ones for both models, so the difference is paired.

    Args:
        challenger: the new model's predictions.
        champion: the old model's, as classes of shape (rows,), in the same order.
        group: where to compare.
        settings: of the bootstrap.
    """
    if group != ALL and group not in challenger.group_names:
        return None
    new, old = challenger.predictions == challenger.labels, champion == challenger.labels
    chosen = _rows_of(challenger, group)
    documents = challenger.documents[chosen]
    count = len(np.unique(documents))
    first, second = bootstrap.resample_accuracy(
        documents, [new[chosen], old[chosen]], settings.resamples, settings.seed
    )
    # One document says nothing about other documents: every draw would be the same, and look certain.
    interval = bootstrap.percentile_interval(first - second, settings.confidence) if count > 1 else (-1.0, 1.0)
    return Pair(
        difference=_difference(new[chosen], old[chosen]),
        ci=interval,
        confidence=settings.confidence,
        mcnemar=mcnemar(new[chosen], old[chosen]),
        rows=int(chosen.sum()),
        documents=count,
        groups={
            name: _difference(new[rows], old[rows])
            for name in sorted(challenger.group_names)
            if name != group and (rows := _rows_of(challenger, name)).any()
        },
    )


def _rows_of(predicted: Predicted, group: str) -> np.ndarray:
    if group == ALL:
        return np.ones(len(predicted.labels), dtype=bool)
    return np.asarray(predicted.groups == predicted.group_names.index(group))


def _difference(new: np.ndarray, old: np.ndarray) -> float:
    """Of whole rows, so that what is no difference is none to the bit."""
    return float((int(new.sum()) - int(old.sum())) / len(new))
