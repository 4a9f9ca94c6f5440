"""What a model says of rows: the labels it predicts, how sure it is, and how often it is right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from flows.drift.texts import Histogram

STEPS = 1000
"""Confidence is counted in thousandths."""
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Hits:
    """How many of how many rows a model got right."""

    right: int
    rows: int

    @property
    def accuracy(self) -> float:
        """The share of right rows."""
        return self.right / self.rows

    def interval(self, confidence: float) -> tuple[float, float]:
        """Wilson's interval (1927, "Probable inference, the law of succession, and statistical inference", JASA 22)."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.rows).proportion_ci(confidence, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Said:
    """How many rows got each label, and how many each confidence (in thousandths); ``hits`` where labels are known."""

    labels: Mapping[str, int]
    confidence: Histogram
    hits: Hits | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.confidence.rows


def of_test_rows(
    predictions: Path, names: Sequence[str], test: Path, only: ds.Expression, today: Sequence[str]
) -> Said:
    """What a model said of the test rows that ``only`` admits.

    Args:
        predictions: a Parquet file with the columns row and logits.
        names: the model's labels, by class.
        test: the folder of the test rows (columns row, label and group).
        only: which of them count.
        today: the data's labels, by class.
    """
    found = ds.dataset(test, format="parquet").to_table(["row", "label"], filter=only)
    rows = found["row"].to_numpy()
    actual = np.array([*today, ""], dtype=object)[found["label"].fill_null(-1).to_numpy()]
    order = np.argsort(rows)
    rows, actual = rows[order], actual[order]
    labels, counts, right = np.zeros(len(names), np.int64), np.zeros(STEPS + 1, np.int64), 0
    for batch in _batches(predictions):
        numbers = batch["row"].to_numpy()
        place = np.minimum(np.searchsorted(rows, numbers), max(len(rows) - 1, 0))
        mine = (rows[place] == numbers) if len(rows) else np.zeros(len(numbers), bool)
        logits = batch["logits"].flatten().to_numpy().reshape(len(batch), -1)[mine].astype(np.float64)
        classes = logits.argmax(axis=-1)
        labels += np.bincount(classes, minlength=len(names))
        counts += np.bincount(_thousandths(logits), minlength=STEPS + 1)
        right += int((np.array(names, dtype=object)[classes] == actual[place[mine]]).sum())
    shares = {name: int(number) for name, number in zip(names, labels, strict=True)}
    known = int(labels.sum())
    return Said(shares, _histogram(counts), Hits(right, known) if known else None)


def _thousandths(logits: np.ndarray) -> np.ndarray:
    """The probability of the predicted class, rounded."""
    total = np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
    return np.asarray(np.rint(STEPS / total), dtype=np.int64)


def _histogram(counts: np.ndarray) -> Histogram:
    there = np.flatnonzero(counts)
    return Histogram(there / STEPS, counts[there])


def _batches(predictions: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(predictions) as file:
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=["row", "logits"])


def labels_of(schema: Path) -> list[str]:
    """The data's labels, by class, from the data gate's ``schema.json``."""
    return [str(name) for name in json.loads(schema.read_text(encoding="utf-8"))["labels"]]


def of_log(database: duckdb.DuckDBPyConnection) -> Said:
    """What the model said of the rows in the view ``mine`` of the log (see :mod:`flows.drift.scored`)."""
    shares = database.execute("SELECT label, count(*) FROM mine GROUP BY label ORDER BY label").fetchall()
    query = f"SELECT round({STEPS} * score)::INTEGER AS step, count(*) AS n FROM mine GROUP BY 1 ORDER BY 1"
    found = database.execute(query).fetchnumpy()
    confidence = Histogram(np.asarray(found["step"]) / STEPS, np.asarray(found["n"]))
    return Said({str(label): int(rows) for label, rows in shares}, confidence)
