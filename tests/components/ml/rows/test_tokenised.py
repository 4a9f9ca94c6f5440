"""Rows are tokenised to a memory-mapped file, beside the right logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.rows.tokenised import Collator, Source, first_inputs, rows_of, tokenise
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import IGNORED, Reading
from components.ml.teaching.pseudo_labels import Selection, Summary

TEXTS: dict[str, Any] = {"task": TASKS["text-classification"], "classes": 2, "reading": Reading(16)}


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_encoder)


def write_logits(folder: Path, rows: list[int]) -> Path:
    folder.mkdir()
    values = pa.array([[float(row), -float(row)] for row in rows], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"row": pa.array(rows, pa.int64()), "logits": values}), folder / "part-00000.parquet")
    return folder


def test_rows_keep_their_order_labels_and_logits(
    tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    logits = write_logits(tmp_path / "logits", list(range(24)))
    rows = tokenise([Source(tiny_splits / "validation", logits)], tokenizer, tmp_path / "rows.arrow", **TEXTS)
    labels = pq.read_table(tiny_splits / "validation")["label"].to_pylist()
    assert [rows[index]["label"] for index in range(len(rows))] == labels
    assert rows[5]["teacher_logits"] == [5.0, -5.0]
    assert rows.lengths == [len(rows[index]["input_ids"]) for index in range(len(rows))]


def test_unlabelled_rows_have_the_ignored_label(
    tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    pool = Source(tiny_splits / "unlabelled", taught=False)
    rows = tokenise([pool], tokenizer, tmp_path / "rows.arrow", **TEXTS)
    assert {rows[index]["label"] for index in range(len(rows))} == {IGNORED}


def test_only_the_named_groups_are_kept(tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = tokenise([Source(tiny_splits / "train")], tokenizer, tmp_path / "rows.arrow", **TEXTS, groups=["b"])
    assert len(rows) == 60


def test_groups_without_rows_are_told(tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    groups = ["nowhere", "b", "c"]
    rows = tokenise([Source(tiny_splits / "train")], tokenizer, tmp_path / "x.arrow", **TEXTS, groups=groups)
    assert rows.absent == ["nowhere", "c"]
    assert len(rows) == 60


def test_the_first_inputs_are_those_there_are(tiny_splits: Path, tmp_path: Path) -> None:
    expected = pq.read_table(tiny_splits / "validation")["text"].to_pylist()
    assert first_inputs(tiny_splits / "validation", 3) == expected[:3]
    assert first_inputs(tiny_splits / "validation", 99) == expected
    empty = tmp_path / "validation"
    empty.mkdir()
    pq.write_table(pq.read_table(tiny_splits / "validation").slice(0, 0), empty / "part-00000.parquet")
    with pytest.raises(UserError, match=r"validation has no rows") as caught:
        first_inputs(empty, 3)
    assert "data.validation" in caught.value.remedy


@pytest.mark.parametrize("rows", [list(range(23)), [*range(23), 99]], ids=["too few", "another row"])
def test_logits_of_other_rows_are_refused(
    tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, rows: list[int]
) -> None:
    logits = write_logits(tmp_path / "logits", rows)
    with pytest.raises(UserError, match="belong to other rows"):
        tokenise([Source(tiny_splits / "validation", logits)], tokenizer, tmp_path / "rows.arrow", **TEXTS)


def test_long_texts_are_cut(tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = tokenise(
        [Source(tiny_splits / "train")], tokenizer, tmp_path / "rows.arrow", **TEXTS | {"reading": Reading(8)}
    )
    assert max(rows.lengths) == 8


def test_a_batch_is_padded_to_its_longest_row_only(
    tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = tokenise(
        [Source(tiny_splits / "train")], tokenizer, tmp_path / "rows.arrow", **TEXTS | {"reading": Reading(64)}
    )
    batch = Collator(tokenizer, TEXTS["task"], classes=2)([rows[index] for index in range(4)])
    assert batch["input_ids"].shape == (4, max(rows.lengths[:4]))
    assert batch["attention_mask"].sum(1).tolist() == rows.lengths[:4]
    assert "teacher_logits" not in batch


def test_rows_without_label_and_logits_are_left_out_where_there_is_nothing_to_learn(
    tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    sources = [Source(tiny_splits / "train"), Source(tiny_splits / "unlabelled")]
    assert len(tokenise(sources, tokenizer, tmp_path / "rows.arrow", **TEXTS)) == 120


@pytest.mark.parametrize("hard", [False, True])
def test_a_selection_says_which_rows_take_part_and_what_they_are_labelled(
    tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, hard: bool
) -> None:
    logits = write_logits(tmp_path / "logits", list(range(30)))
    summary = Summary(rows=30, kept=2, unknown=0, unsure=28, over_the_cap=0, per_class=[1, 1])
    selection = Selection(np.array([3, 7]), np.array([1, 0], dtype=np.int32), hard, summary)
    source = Source(tiny_splits / "unlabelled", logits, selection)
    rows = tokenise([source], tokenizer, tmp_path / "rows.arrow", **TEXTS)
    items = [rows[index] for index in range(len(rows))]
    assert [item["label"] for item in items] == ([1, 0] if hard else [IGNORED, IGNORED])
    assert [item.get("teacher_logits") for item in items] == ([None, None] if hard else [[3.0, -3.0], [7.0, -7.0]])


def test_rows_of_a_group_are_found_by_number(tiny_splits: Path) -> None:
    assert rows_of(tiny_splits / "unlabelled", None) is None
    found = rows_of(tiny_splits / "unlabelled", ["b"])
    assert found is not None
    assert found.tolist() == list(range(1, 30, 2))


def test_rows_without_teacher_logits_among_others_have_nan(
    tiny_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    logits = write_logits(tmp_path / "logits", list(range(24)))
    sources = [Source(tiny_splits / "validation", logits), Source(tiny_splits / "train")]
    rows = tokenise(sources, tokenizer, tmp_path / "rows.arrow", **TEXTS)
    batch = Collator(tokenizer, TEXTS["task"], classes=2)([rows[23], rows[24]])
    assert batch["teacher_logits"].isnan().tolist() == [[False, False], [True, True]]
