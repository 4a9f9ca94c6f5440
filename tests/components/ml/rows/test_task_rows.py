"""Rows of other tasks: tags stand on the first token of their word, and every batch is of one task."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from components.errors import UserError
from components.ml.rows.task_rows import TASK, TaskCollator, TaskRows, read_tasks
from components.ml.rows.tokenised import Collator, Source, TokenisedRows, tokenise
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import IGNORED, Reading

TEXTS, WORDS = TASKS["text-classification"], TASKS["token-classification"]
CLASSES = 4


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_encoder)


def encoded(
    tokens: Sequence[Sequence[str]], tags: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, length: int = 32
) -> tuple[list[list[int]], list[list[int]]]:
    """The ids of rows of words, and their labels as a batch has them, without its padding."""
    with tempfile.TemporaryDirectory() as folder:
        split = write_words(Path(folder) / "words", [list(row) for row in tokens], [list(row) for row in tags])
        rows = tokenise([Source(split)], tokenizer, Path(folder) / "rows", task=WORDS, **how(length, 8))
        items = [rows[index] for index in range(len(rows))]
    ids = [item["input_ids"] for item in items]
    labels = Collator(pads(tokenizer), WORDS, 8)(items)["labels"]
    assert all((row[len(own) :] == IGNORED).all() for row, own in zip(labels, ids, strict=True))
    return ids, [row[: len(own)].tolist() for row, own in zip(labels, ids, strict=True)]


def how(length: int, classes: int = CLASSES) -> dict[str, Any]:
    return {"classes": classes, "reading": Reading(length)}


def pads(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, which may be one that has no token for padding yet."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def tokenised(folder: Path, kind: Any, tokenizer: PreTrainedTokenizerBase, scratch: Path, length: int) -> TokenisedRows:
    return tokenise([Source(folder)], tokenizer, scratch, task=kind, **how(length))


def write_words(folder: Path, tokens: list[list[str]], tags: list[list[int]]) -> Path:
    folder.mkdir(parents=True)
    table = {"row": pa.array(range(len(tokens)), pa.int64()), "tokens": pa.array(tokens, pa.list_(pa.string()))}
    pq.write_table(pa.table(table | {"label": pa.array(tags, pa.list_(pa.int32()))}), folder / "part-00000.parquet")
    return folder


def write_texts(folder: Path, texts: list[str], labels: list[int]) -> Path:
    folder.mkdir(parents=True)
    table = {"row": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())}
    pq.write_table(pa.table(table | {"label": pa.array(labels, pa.int32())}), folder / "part-00000.parquet")
    return folder


def test_tags_stand_on_the_first_token_of_each_word(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, labels = encoded([["goodbad", "the", "手机"], [], ["film"]], [[1, 0, 2], [], [3]], tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(ids[0])
    assert tokens == ["[CLS]", "good", "##bad", "the", "手", "机", "[SEP]"]
    assert labels[0] == [IGNORED, 1, IGNORED, 0, 2, IGNORED, IGNORED]
    assert labels[1] == [IGNORED, IGNORED]
    assert labels[2] == [IGNORED, 3, IGNORED]


def test_a_batch_gives_what_its_rows_give_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    words = ["good", "goodbad", "the", "手机", "film", "", "it"]
    rows = [words[index % 5 : index % 5 + index % 3] for index in range(20)]
    tags = [[(index + place) % 4 for place in range(len(row))] for index, row in enumerate(rows)]
    ids, labels = encoded(rows, tags, tokenizer)
    alone = [encoded([row], [tag], tokenizer) for row, tag in zip(rows, tags, strict=True)]
    assert ids == [one[0][0] for one in alone]
    assert labels == [one[1][0] for one in alone]


def test_words_that_are_cut_off_have_no_label(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, labels = encoded([["the"] * 50, ["good"]], [[1] * 50, [2]], tokenizer, 8)
    assert len(ids[0]) == len(labels[0]) == 8
    assert labels[0].count(1) == 6
    assert labels[1] == [IGNORED, 2, IGNORED]


def test_words_are_the_tokens_that_they_are_in_a_text() -> None:
    alphabet = {"<unk>": 0, "a": 1, "Ġ": 2, "Ġa": 3, "b": 4, "Ġab": 5, "ab": 6, "ä¸Ń": 7, "ä": 8, "¸": 9, "Ń": 10}
    alphabet |= {"ä¸": 11}
    merges = [("Ġ", "a"), ("Ġa", "b"), ("a", "b"), ("ä", "¸"), ("ä¸", "Ń")]
    spaced = Tokenizer(models.BPE(alphabet, merges, unk_token="<unk>"))
    spaced.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spaced, unk_token="<unk>")
    ids, labels = encoded([["ab", "a", "ab", "中", "中"]], [[0, 1, 2, 3, 4]], tokenizer)
    assert ids[0] == tokenizer("ab a ab 中中")["input_ids"] == [6, 3, 5, 2, 7, 7]
    assert labels[0] == [0, 1, 2, 3, IGNORED, 4]
    assert encoded([["ab"], ["ab"], ["a"]], [[5], [6], [7]], tokenizer)[1] == [[5], [6], [7]]


def test_a_slow_tokenizer_is_refused(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(UserError, match="needs a tokenizer that knows which word"):
        encoded([["good"]], [[1]], tokenizer)


def test_rows_of_both_kinds_are_read_back(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    words = write_words(tmp_path / "words", [["good", "goodbad"], ["the"]], [[1, 0], [2]])
    rows = tokenised(words, WORDS, tokenizer, tmp_path / "words.arrow", 32)
    assert rows.lengths == [5, 3]
    assert Collator(tokenizer, WORDS, CLASSES)([rows[0]])["labels"].tolist() == [[IGNORED, 1, 0, IGNORED, IGNORED]]
    texts = write_texts(tmp_path / "texts", ["the film was good", "bad"], [1, 0])
    read = tokenised(texts, TEXTS, tokenizer, tmp_path / "texts.arrow", 5)
    assert read.lengths == [5, 3]
    assert [read[index]["label"] for index in range(2)] == [1, 0]
    assert read[1]["input_ids"] == tokenizer("bad")["input_ids"]


def test_a_task_that_several_phases_read_is_tokenised_once(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_texts(tmp_path / "data" / "topic" / split, ["good", "bad"], [1, 0])
    task: Any = (tmp_path / "data" / "topic", TEXTS, ["a", "b"], tokenizer, tmp_path, Reading(8))
    first = read_tasks(*task)
    before = [(path.name, path.stat().st_mtime_ns) for path in sorted(tmp_path.glob("*.arrow"))]
    again = read_tasks(*task)
    assert before == [(path.name, path.stat().st_mtime_ns) for path in sorted(tmp_path.glob("*.arrow"))]
    assert [name for name, _ in before] == ["task-topic-train.arrow", "task-topic-validation.arrow"]
    assert first["train"][1] == again["train"][1]


def test_a_task_without_rows_is_refused_by_name(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    write_texts(tmp_path / "data" / "topic" / "train", ["good"], [1])
    write_texts(tmp_path / "data" / "topic" / "validation", [], [])
    with pytest.raises(UserError, match="'topic' has no rows in its split validation"):
        read_tasks(tmp_path / "data" / "topic", TEXTS, ["a", "b"], tokenizer, tmp_path, Reading(8))


def test_rows_of_all_tasks_are_found_by_one_index(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    parts: dict[str, Any] = {}
    for name, texts in {"one": ["good", "bad film"], "two": ["the", "it", "was a film"]}.items():
        folder = write_texts(tmp_path / name, texts, list(range(len(texts))))
        parts[name] = tokenised(folder, TEXTS, tokenizer, tmp_path / f"{name}.arrow", 16)
    rows = TaskRows(parts)
    assert len(rows) == 5
    assert [rows[index][TASK] for index in range(5)] == ["one", "one", "two", "two", "two"]
    assert [rows[index]["label"] for index in range(5)] == [0, 1, 0, 1, 2]
    assert rows.lengths == [len(rows[index]["input_ids"]) for index in range(5)]
    assert rows.starts == {"one": 0, "two": 2}


def test_batches_name_their_task_and_pad_their_labels(tokenizer: PreTrainedTokenizerBase) -> None:
    collate = TaskCollator({"ner": Collator(tokenizer, WORDS, 3), "target": Collator(tokenizer, TEXTS, 2)})
    short = {"input_ids": [2, 7, 3], "label": [1.0], "at": [1], TASK: "ner"}
    long = {"input_ids": [2, 7, 8, 9, 3], "label": [0.0, 2.0, 1.0], "at": [1, 2, 3], TASK: "ner"}
    batch = collate([short, long])
    assert batch[TASK] == "ner"
    assert next(iter(batch)) == "input_ids"
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["labels"].tolist() == [[IGNORED, 1, IGNORED, IGNORED, IGNORED], [IGNORED, 0, 2, 1, IGNORED]]
    tokenizer.padding_side = "left"
    assert collate([short, long])["labels"][0].tolist() == [IGNORED, IGNORED, IGNORED, 1, IGNORED]
    tokenizer.padding_side = "right"
    target = {"input_ids": [2, 7, 3], "label": 1, "teacher_logits": [0.5, -0.5], TASK: "target"}
    batch = collate([target, target])
    assert batch[TASK] == "target"
    assert torch.equal(batch["labels"], torch.tensor([1, 1]))
    assert batch["teacher_logits"].shape == (2, 2)
    with pytest.raises(ValueError, match="too many values"):
        collate([target, short])
