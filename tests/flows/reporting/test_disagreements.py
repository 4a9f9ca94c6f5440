"""Rows on which two models disagree: counted, sorted by the confidence of the mistake, joined with their texts."""

from __future__ import annotations

import math

import pyarrow.parquet as pq
import pytest

from flows.repo.workspace import Workspace
from flows.reporting.disagreements import LONGEST, confusion, disagreement
from tests.flows.reporting.conftest import HOSTILE, LABELS


def test_the_most_confident_mistakes_come_first_with_their_texts(workspace: Workspace) -> None:
    folder = workspace.root / "artifacts"
    found = disagreement(folder / "evaluate/predictions", folder / "validate/test", ("teacher", "lora"))
    assert found is not None
    assert (found.rows, found.differ) == (6, 4)
    assert found.counts == {"first": 3, "second": 1, "neither": 0}
    assert set(found.shown) == {"first", "second"}
    first = found.shown["first"]
    assert [row.number for row in first] == [0, 3, 1]
    assert first[0].text == HOSTILE
    assert (first[0].label, first[0].predictions) == (LABELS[0], (LABELS[0], LABELS[1]))
    sure = [1 / (1 + math.exp(-gap)) for gap in (2.0, 4.0)]
    assert first[0].confidences == pytest.approx(sure)
    assert len(first[1].text) <= LONGEST + 1
    assert first[1].text.endswith("…")


def test_of_pairs_both_texts_are_shown(workspace: Workspace) -> None:
    folder = workspace.root / "artifacts"
    for shard in (folder / "validate/test").glob("*.parquet"):
        table = pq.read_table(shard)
        pq.write_table(table.append_column("text_pair", [["second"] * len(table)]), shard)
    found = disagreement(folder / "evaluate/predictions", folder / "validate/test", ("teacher", "lora"))
    assert found is not None
    assert found.shown["first"][0].text == f"{HOSTILE} ⟷ second"


def test_without_predictions_or_texts_there_is_nothing_to_show(workspace: Workspace) -> None:
    folder = workspace.root / "artifacts"
    places = (folder / "evaluate/predictions", folder / "validate/test")
    assert disagreement(*places, ("lora", "lora_int8")) is None
    assert disagreement(places[0], folder, ("teacher", "lora")) is None
    assert confusion(places[0] / "lora_int8.parquet", 2) is None


def test_rows_are_counted_by_actual_and_predicted_class(workspace: Workspace) -> None:
    file = workspace.root / "artifacts/evaluate/predictions/teacher.parquet"
    assert confusion(file, 2) == [[2, 1], [0, 3]]
