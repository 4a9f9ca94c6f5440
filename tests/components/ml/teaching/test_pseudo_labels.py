"""Pseudo-labels: thresholds, caps and ties, the same whatever the shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ml.teaching.pseudo_labels import UNKNOWN, select
from components.params.phases import PseudoLabels

ROWS = 300
CLASSES = 3


def write_pool(folder: Path, order: np.ndarray, shards: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A pool of ROWS rows in ``order``, every tenth unknown; gives class (UNKNOWN) and confidence by row number."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(ROWS, CLASSES)).astype(np.float32)
    confidence = (draw.integers(34, 101, ROWS) / 100).astype(np.float32)  # so that there are ties
    unknown = np.arange(ROWS) % 10 == 0
    folder.mkdir(parents=True)
    for index, part in enumerate(np.array_split(order, shards)):
        table = pa.table(
            {
                "row": pa.array(part, pa.int64()),
                "logits": pa.array([None if unknown[r] else logits[r].tolist() for r in part], pa.list_(pa.float32())),
                "confidence": pa.array(confidence[part], pa.float32(), mask=unknown[part]),
            }
        )
        pq.write_table(table, folder / f"part-{index:05}.parquet")
    return np.where(unknown, UNKNOWN, logits.argmax(axis=1)), confidence


@pytest.fixture
def pool(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    return tmp_path / "pool", *write_pool(tmp_path / "pool", np.arange(ROWS))


def test_all_rows_with_logits_take_part_unless_something_is_asked(pool: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, classes, _ = pool
    selection = select(folder, PseudoLabels())
    assert (selection.takes(np.arange(ROWS)) == (classes != UNKNOWN)).all()
    assert selection.label_of(np.arange(ROWS)) is None
    assert selection.summary.unknown == 30


@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
def test_rows_below_the_threshold_stay_out_and_those_at_it_stay_in(
    pool: tuple[Path, np.ndarray, np.ndarray], threshold: float
) -> None:
    folder, classes, confidence = pool
    selection = select(folder, PseudoLabels(min_confidence=threshold))
    expected = (classes != UNKNOWN) & (confidence >= np.float32(threshold))
    assert (confidence == np.float32(threshold)).any()
    assert (selection.takes(np.arange(ROWS)) == expected).all()
    assert selection.summary.unsure == ROWS - 30 - expected.sum()


@pytest.mark.parametrize("cap", [1, 7, 1000])
def test_of_each_class_the_most_certain_rows_stay_then_the_first(
    pool: tuple[Path, np.ndarray, np.ndarray], cap: int
) -> None:
    folder, classes, confidence = pool
    selection = select(folder, PseudoLabels(max_per_class=cap, min_confidence=0.4))
    expected: set[int] = set()
    for label in range(CLASSES):
        sure = [row for row in range(ROWS) if classes[row] == label and confidence[row] >= np.float32(0.4)]
        expected |= set(sorted(sure, key=lambda row: (-confidence[row], row))[:cap])
    assert set(np.flatnonzero(selection.takes(np.arange(ROWS))).tolist()) == expected
    summary = selection.summary
    assert summary.kept == sum(summary.per_class) == len(expected)
    assert summary.kept + summary.unknown + summary.unsure + summary.over_the_cap == summary.rows == ROWS
    assert max(summary.per_class) <= cap


def test_the_choice_depends_on_neither_shards_nor_order(pool: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, _, _ = pool
    write_pool(folder.parent / "other", np.random.default_rng(5).permutation(ROWS), shards=4)
    settings = PseudoLabels(kind="hard", max_per_class=11)
    one, other = select(folder, settings), select(folder.parent / "other", settings)
    assert one.rows.tolist() == other.rows.tolist()
    assert one.classes.tolist() == other.classes.tolist()
    assert one.summary == other.summary


def test_hard_labels_are_the_teachers_classes(pool: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, classes, _ = pool
    selection = select(folder, PseudoLabels(kind="hard", min_confidence=0.6))
    asked = np.array([7, 299, 0, 7, 12345])
    labels, taken = selection.label_of(asked), selection.takes(asked)
    assert labels is not None
    assert labels.dtype == np.int32
    assert labels.tolist() == [classes[row] if took else UNKNOWN for row, took in zip(asked, taken, strict=True)]
    assert not taken[2]  # row 0 is unknown
    assert not taken[4]  # 12345 isn't there


def test_the_choice_can_be_among_some_rows_only(pool: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, _, _ = pool
    among = np.arange(1, ROWS, 7)
    selection = select(folder, PseudoLabels(max_per_class=5), among)
    assert set(selection.rows.tolist()) <= set(among.tolist())
    assert selection.summary.rows == len(among)
    assert min(selection.summary.per_class) == 5


def test_none_takes_no_row_and_an_empty_pool_has_none(
    pool: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for folder, settings in ((pool[0], PseudoLabels(kind="none")), (tmp_path / "empty", PseudoLabels(kind="hard"))):
        selection = select(folder, settings)
        assert not selection.takes(np.arange(ROWS)).any()
        assert selection.summary.kept == 0
        assert selection.summary.describe()


def test_the_summary_names_reasons_and_classes(pool: tuple[Path, np.ndarray, np.ndarray]) -> None:
    summary = select(pool[0], PseudoLabels(min_confidence=0.6, max_per_class=9)).summary
    said = summary.describe(["bad", "so-so", "good"])
    assert f"27 of {ROWS} rows take part (bad 9, so-so 9, good 9)" in said
    assert "30 without logits" in said
    assert "beyond max_per_class" in said
