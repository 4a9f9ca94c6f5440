"""Two models on the same rows: the difference, its interval over documents, and the other groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.params.stages import Bootstrap
from flows.gating.evidence import Predicted, compare, read_predictions

SETTINGS = Bootstrap(resamples=400)
GROUPS = ["products", "微博"]


def predicted(rows: int = 400, each: int = 5, seed: int = 0, accuracy: float = 0.9) -> Predicted:
    """Rows in documents of ``each``, in turn in two groups; so many are predicted right."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    documents = np.arange(rows) // each
    wrong = generator.random(rows) >= accuracy
    return Predicted(np.arange(rows), labels, (labels + wrong) % 3, documents, documents % 2, GROUPS)


def test_a_model_is_no_better_than_itself() -> None:
    found = predicted()
    pair = compare(found, found.predictions, "products", SETTINGS)
    assert pair
    assert (pair.difference, pair.ci, pair.mcnemar.p, pair.groups) == (0.0, (0.0, 0.0), 1.0, {"微博": 0.0})
    assert (pair.rows, pair.documents) == (200, 40)


def test_the_challenger_comes_first_and_each_group_is_its_own() -> None:
    found = predicted()
    champion = found.predictions.copy()
    lost = np.flatnonzero((found.groups == 0) & (champion == found.labels))[:30]
    champion[lost] = (found.labels[lost] + 1) % 3
    won = np.flatnonzero((found.groups == 1) & (champion != found.labels))[:10]
    champion[won] = found.labels[won]
    pair = compare(found, champion, "products", SETTINGS)
    assert pair
    assert pair.difference == pytest.approx(30 / 200)
    assert pair.ci[0] < 30 / 200 < pair.ci[1]
    assert (pair.mcnemar.only_first, pair.mcnemar.only_second) == (30, 0)
    assert pair.groups == {"微博": pytest.approx(-len(won) / 200)}
    whole = compare(found, champion, "all", SETTINGS)
    assert whole
    assert whole.difference == pytest.approx((30 - len(won)) / 400)
    assert set(whole.groups) == set(GROUPS)


def test_rows_of_few_documents_give_a_wider_interval() -> None:
    many, few = predicted(each=1, accuracy=0.5), predicted(each=20, accuracy=0.5)
    champion = many.predictions.copy()
    champion[:40] = many.labels[:40]  # so the difference is in two documents of twenty rows
    first, second = (compare(each, champion, "all", SETTINGS) for each in (many, few))
    assert first
    assert second
    assert first.difference == second.difference
    assert second.ci[1] - second.ci[0] > 1.3 * (first.ci[1] - first.ci[0])


def test_one_document_shows_nothing() -> None:
    found = predicted(rows=20, each=20, accuracy=0.99)
    pair = compare(found, (found.labels + 1) % 3, "all", SETTINGS)
    assert pair
    assert pair.ci == (-1.0, 1.0)


def test_a_group_without_test_rows_is_no_comparison() -> None:
    found = predicted()
    assert compare(found, found.predictions, "letters", SETTINGS) is None


def test_predictions_are_read_as_evaluation_wrote_them(tmp_path: Path) -> None:
    schema = pa.schema(
        {
            "row": pa.int64(),
            "group": pa.string(),
            "document": pa.string(),
            "label": pa.int32(),
            "prediction": pa.int32(),
        }
    )
    columns = {
        "row": [4, 5, 6, 7],
        "group": ["微博", "a", "微博", "b"],
        "document": ["x", "y", "z", "x"],
        "label": [0, 1, 1, 0],
        "prediction": [0, 1, 0, 0],
    }
    table = pa.table(columns, schema=schema)
    with pq.ParquetWriter(tmp_path / "lora.parquet", schema) as writer:  # as it scores, batch by batch
        writer.write_table(table.slice(0, 1))
        writer.write_table(table.slice(1))
    found = read_predictions(tmp_path / "lora.parquet")
    assert [found.group_names[code] for code in found.groups] == columns["group"]
    assert found.documents[0] == found.documents[3]
    assert len(set(found.documents)) == 3
    assert (list(found.rows), list(found.labels), found.accuracy) == ([4, 5, 6, 7], [0, 1, 1, 0], 0.75)
