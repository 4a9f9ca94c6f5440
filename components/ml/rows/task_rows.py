"""Rows of other tasks: tokenised to memory-mapped files, and put together so that each batch is of one task."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.rows.tokenised import read_batches
from components.ml.rows.words import CHINESE, OUTSIDE, no_words
from components.ml.training.heads import TaskKind
from components.ml.training.losses import IGNORED

TASK = "task"
"""The key of items and batches that names their task."""
Items = list[dict[str, Any]]
_IDS = ("input_ids", pa.list_(pa.int32()))
_SCHEMAS = {
    "text-classification": pa.schema([_IDS, ("label", pa.int32())]),
    "token-classification": pa.schema([_IDS, ("labels", pa.list_(pa.int32()))]),
}


class TokenisedTask(Dataset[dict[str, Any]]):
    """Rows of one task, read from a memory-mapped Arrow file.

    An item holds ``input_ids`` (list of int), and ``label`` (int) or, for token classification, ``labels``
    (list of int, as long, ``IGNORED`` where no word begins).
    """

    def __init__(self, path: Path) -> None:
        self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.lengths: list[int] = pc.list_value_length(self.table["input_ids"]).to_pylist()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: self.table[name][index].as_py() for name in self.table.column_names}


class TaskRows(Dataset[dict[str, Any]]):
    """The rows of several tasks, one task after another; each item names its task under ``TASK``."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.parts = dict(parts)
        self.sizes = {name: len(part) for name, part in parts.items()}
        self.starts = dict(zip(parts, accumulate(self.sizes.values(), initial=0), strict=False))
        self.lengths: list[int] = [length for part in parts.values() for length in part.lengths]

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = bisect.bisect_right(list(self.starts.values()), index) - 1
        name = list(self.starts)[place]
        return {**self.parts[name][index - self.starts[name]], TASK: name}


class TaskCollator:
    """Rows of one task to a batch that names the task, a string, under ``TASK``.

    Args:
        tokenizer: pads the rows of token classification; their labels get shape (rows, tokens).
        texts: makes batches of all other rows.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Callable[[Items], dict[str, Tensor]]) -> None:
        self.tokenizer = tokenizer
        self.texts = texts

    def __call__(self, items: Items) -> dict[str, Any]:
        (task,) = {item[TASK] for item in items}
        plain = [{name: value for name, value in item.items() if name != TASK} for item in items]
        batch = self._tokens(plain) if "labels" in plain[0] else self.texts(plain)
        return {**batch, TASK: task}  # last: accelerate takes the size of a batch from its first value

    def _tokens(self, items: Items) -> dict[str, Tensor]:
        padded = self.tokenizer.pad({"input_ids": [item["input_ids"] for item in items]}, return_tensors="pt")
        labels = torch.full_like(padded["input_ids"], IGNORED)
        labels[padded["attention_mask"].bool()] = torch.tensor([label for item in items for label in item["labels"]])
        return {**padded, "labels": labels}


def read_tasks(
    folder: Path, kind: TaskKind, tokenizer: PreTrainedTokenizerBase, scratch: Path, max_length: int
) -> dict[str, TokenisedTask]:
    """The training and validation rows of a task, by name of the split.

    Args:
        folder: with the folders ``train`` and ``validation``; its name is the task's.
        kind: of the task.
        tokenizer: of the model.
        scratch: the folder for tokenised rows. What an earlier phase of the run left there is taken as it is.
        max_length: tokens; longer texts are cut.

    Raises:
        UserError: there are no rows, or the tokenizer doesn't know words, as token classification needs it.
    """
    found = {}
    for split in ("train", "validation"):
        path = scratch / f"task-{folder.name}-{split}.arrow"
        rows = (
            TokenisedTask(path) if path.exists() else tokenise_task(folder / split, kind, tokenizer, path, max_length)
        )
        if not len(rows):
            raise UserError(
                f"The task '{folder.name}' has no rows in its split {split}.",
                f"Put rows into data.tasks.{folder.name}.{split}, or leave the task out of the phases' `tasks`.",
                "data",
            )
        found[split] = rows
    return found


def tokenise_task(
    folder: Path, kind: TaskKind, tokenizer: PreTrainedTokenizerBase, scratch: Path, max_length: int
) -> TokenisedTask:
    """Tokenise one split of a task into the Arrow file ``scratch``.

    Args:
        folder: Parquet shards of text and label, or of tokens and tags.
        kind: of the task.
        tokenizer: of the model.
        scratch: the file to write.
        max_length: tokens; longer texts are cut.

    Raises:
        UserError: the tokenizer doesn't know words, as token classification needs it.
    """
    schema = _SCHEMAS[kind]
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in read_batches(folder):
            if kind == "token-classification":
                columns = list(encode_words(batch["tokens"], batch["tags"], tokenizer, max_length))
            else:
                ids = tokenizer(batch["text"].to_pylist(), truncation=True, max_length=max_length)["input_ids"]
                columns = [pa.array(ids, pa.list_(pa.int32())), batch["label"].cast(pa.int32())]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return TokenisedTask(scratch)


def encode_words(
    tokens: pa.ListArray, tags: pa.ListArray, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[pa.ListArray, pa.ListArray]:
    """Token ids and labels of rows that are cut into words: the first token of each word has the word's tag.

    All other tokens have ``IGNORED`` (Devlin et al. 2019, section 5.3). Words beyond ``max_length`` tokens are cut.

    Args:
        tokens: the words of each row.
        tags: a class for each word.
        tokenizer: a fast one.
        max_length: tokens, special ones included.

    Raises:
        UserError: the tokenizer doesn't know words.
    """
    if not tokenizer.is_fast:
        raise no_words("token-classification")
    rows = tokens.to_pylist()
    if _reads_blanks(tokenizer):
        rows = [_spaced(words) for words in rows]
    encoded = tokenizer(rows, is_split_into_words=True, truncation=True, max_length=max_length)
    found = [[OUTSIDE if word is None else word for word in encoded.word_ids(index)] for index in range(len(rows))]
    lengths = np.array([len(words) for words in found], dtype=np.int32)
    row = np.repeat(np.arange(len(found)), lengths)
    word = np.array([one for words in found for one in words], dtype=np.int64)
    first = (word != OUTSIDE) & ((np.diff(word, prepend=OUTSIDE) != 0) | (np.diff(row, prepend=-1) != 0))
    starts = np.cumsum([0, *pc.list_value_length(tags).to_pylist()])
    labels = np.full(len(word), IGNORED, dtype=np.int32)
    labels[first] = np.asarray(tags.flatten())[starts[row[first]] + word[first]]
    ends = pa.array(np.cumsum([0, *lengths], dtype=np.int32))
    ids = pa.array([one for ids in encoded["input_ids"] for one in ids], pa.int32())
    return pa.ListArray.from_arrays(ends, ids), pa.ListArray.from_arrays(ends, pa.array(labels))


def _reads_blanks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether words given one by one need the blank before them to be the tokens that they are in a text."""
    text, plain, blank = (
        tokenizer(one, is_split_into_words=isinstance(one, list), add_special_tokens=False)["input_ids"]
        for one in ("a a", ["a", "a"], ["a", " a"])
    )
    return bool(plain != text and blank == text)


def _spaced(words: list[str]) -> list[str]:
    """Words with a blank before them, but for the first, and between Chinese characters."""
    return [
        f" {word}" if word and before and not (CHINESE.match(word) and CHINESE.match(before[-1])) else word
        for word, before in zip(words, ["", *words], strict=False)
    ]
