"""Tokenised rows, memory-mapped: nothing holds all texts as Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.rows.inputs import Input, encode, input_columns, inputs_of, padding_before
from components.ml.rows.words import word_ids_of
from components.ml.tasks.task import IGNORED, Reading, Task
from components.ml.teaching.pseudo_labels import Selection

READ_ROWS = 4096


def _schema(label: pa.DataType) -> pa.Schema:
    """What is kept of each window; ``at`` are the places of the tokens that have logits, null where the row has."""
    whole = pa.list_(pa.int32())
    names = {"input_ids": whole, "token_type_ids": whole, "label": label, "teacher_logits": pa.list_(pa.float32())}
    return pa.schema([*names.items(), ("word_ids", whole), ("at", whole)])


_ONE_CLASS = pa.int32()
_NUMBERS = pa.list_(pa.float32())
"""What a window's label is where a row has one class, and otherwise."""


@dataclass(frozen=True)
class Splits:
    """The folders of rows that ``validate`` wrote: Parquet shards with row, text (text_pair, tokens), label, group and
    document; the label is of the task's own type.

    ``unlabelled`` has no labels (null). ``tasks`` holds a folder NAME/train and NAME/validation for each other task,
    and tasks.json: name -> {"type": ..., "labels": [...]}.
    """

    train: Path
    unlabelled: Path
    validation: Path
    tasks: Path


@dataclass(frozen=True)
class Source:
    """A split to read rows from.

    Args:
        rows: the folder of its shards.
        logits: the folder of the teacher's logits for the same rows in the same order; None if there are none.
        selection: which of the rows take part, and the pseudo-labels they get; None takes all as they are.
        taught: leave out rows that have neither a label nor teacher logits: nothing can be learnt from them.
    """

    rows: Path
    logits: Path | None = None
    selection: Selection | None = None
    taught: bool = True


class TokenisedRows(Dataset[dict[str, Any]]):
    """Rows ready for a model, read from a memory-mapped Arrow file.

    An item holds ``row`` (its index), ``input_ids`` (list of int), ``label`` (int, ``IGNORED`` for unlabelled rows;
    where a row has more than one class a list of numbers, None for unlabelled rows) and, where there are any,
    ``token_type_ids`` (list of int: of pairs, which text each token belongs to), ``at`` (list of int: the tokens that
    have logits, where it isn't the row), ``teacher_logits`` (list of float, the classes of one position after those
    of another) and ``word_ids`` (list of int, the word that each token belongs to, -1 for special tokens).
    A row that is read in windows is as many items.
    ``absent`` names the groups that were asked for and have no row.
    """

    def __init__(self, path: Path, absent: Sequence[str] = ()) -> None:
        self.absent = absent
        self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().unify_dictionaries()
        self.lengths: list[int] = pc.list_value_length(self.table["input_ids"]).to_pylist()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = {name: self.table[name][index].as_py() for name in self.table.column_names}
        label = found.pop("label")
        if label is None and self.table.schema.field("label").type == _ONE_CLASS:
            label = IGNORED
        given = {name: value for name, value in found.items() if value is not None}
        return {"row": index, "label": label} | given

    @property
    def labels(self) -> np.ndarray:
        """Every row's label, or every position's, of shape (labels,); ``IGNORED`` for unlabelled rows."""
        labels = self.table["label"]
        if labels.type != _ONE_CLASS:
            return np.asarray(pc.list_flatten(labels)).astype(np.int64)
        return np.asarray(pc.fill_null(labels, IGNORED))


def read_batches(split: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a folder of Parquet shards, in order, a few thousand at a time."""
    for shard in sorted(split.glob("*.parquet")):
        yield from read_shard(shard, columns)


def read_shard(shard: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of one Parquet file, in order, a few thousand at a time."""
    with pq.ParquetFile(shard) as file:
        yield from file.iter_batches(READ_ROWS, columns=columns)


def first_inputs(split: Path, count: int = 64) -> list[Input]:
    """The first ``count`` texts or pairs of a split, or all there are.

    Raises:
        UserError: the split has no rows.
    """
    inputs = next((inputs_of(batch) for batch in read_batches(split, input_columns(split))), [])
    if not inputs:
        raise UserError(
            f"The split {split} has no rows.", f"Give it rows: data.{split.name} or data.split in params.yaml.", "data"
        )
    return inputs[:count]


def rows_of(split: Path, groups: list[str] | None) -> np.ndarray | None:
    """The numbers of a split's rows that belong to some groups; None for all groups, which stands for all rows."""
    if groups is None:
        return None
    wanted = pa.array(groups, pa.string())
    batches = read_batches(split, ["row", "group"])
    found = [batch["row"].filter(pc.is_in(batch["group"], wanted)).to_numpy() for batch in batches]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


def tokenise(
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerBase,
    scratch: Path,
    *,
    task: Task,
    classes: int,
    reading: Reading,
    groups: list[str] | None = None,
    words: bool = False,
) -> TokenisedRows:
    """Tokenise the rows of some splits.

    Args:
        sources: the splits, with what is known of their rows.
        scratch: the Arrow file to write.
        task: what is learnt of them.
        classes: how many logits a position has.
        reading: how long rows are cut.
        groups: keep only rows of these groups; None keeps all.
        words: leave labels and windows alone, and tell which word each token belongs to; the tokenizer must be a fast
            one.

    Raises:
        UserError: the logits belong to other rows.
    """
    absent = dict.fromkeys(groups or [])
    plain = words or (task.classes_per_row and reading.stride is None)
    schema = _schema(_ONE_CLASS if task.classes_per_row else _NUMBERS)
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for source in sources:
            for batch, teacher_logits in _aligned(source.rows, source.logits):
                if groups is not None:
                    chosen = pc.is_in(batch["group"], pa.array(groups, pa.string()))
                    batch, teacher_logits = batch.filter(chosen), teacher_logits.filter(chosen)
                    for found in pc.unique(batch["group"]).to_pylist():
                        absent.pop(found, None)
                labels, teacher_logits, kept = _lessons_of(batch, teacher_logits, source)
                if not kept.true_count:
                    continue
                inputs, rows = inputs_of(batch.filter(kept)), (labels.filter(kept), teacher_logits.filter(kept))
                if plain:
                    columns = _encode(inputs, *rows, tokenizer, reading.max_length, words)
                else:
                    columns = _windows(inputs, *rows, tokenizer, task, classes, reading)
                writer.write_batch(
                    pa.record_batch(
                        [column.cast(of.type) for column, of in zip(columns, schema, strict=True)], schema=schema
                    )
                )
    return TokenisedRows(scratch, list(absent))


def _lessons_of(
    batch: pa.RecordBatch, teacher_logits: pa.Array, source: Source
) -> tuple[pa.Array, pa.Array, pa.BooleanArray]:
    """Labels and teacher logits as the selection leaves them, and which rows take part."""
    labels = batch["label"]
    kept = pa.array(np.ones(batch.num_rows, dtype=bool))
    if source.selection is not None:
        rows = batch["row"].to_numpy()
        kept = pa.array(source.selection.takes(rows))
        pseudo = source.selection.label_of(rows)
        if pseudo is not None:  # hard: the class is all that is taken from the teacher
            labels = pa.array(pseudo, pa.int32())
            teacher_logits = pa.nulls(len(teacher_logits), teacher_logits.type)
    if source.taught:
        kept = pc.and_(kept, pc.or_(labels.is_valid(), teacher_logits.is_valid()))
    return labels, teacher_logits, kept


def _aligned(split: Path, logits: Path | None) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Batches of rows beside their teacher logits (nulls where there is no folder of logits)."""
    wanted = ["row", *input_columns(split), "label", *_groups(split)]
    if logits is None:
        for batch in read_batches(split, wanted):
            yield batch, pa.nulls(batch.num_rows, pa.list_(pa.float32()))
        return
    for batch, scored in zip_longest(read_batches(split, wanted), read_batches(logits, ["row", "logits"])):
        if batch is None or scored is None or not batch["row"].equals(scored["row"]):
            raise UserError(
                f"The logits in {logits} belong to other rows than {split} holds.",
                "Run the label stage again: `dvc repro -f -s label`.",
                "data",
            )
        yield batch, scored["logits"].cast(pa.list_(pa.float32()))


def _groups(split: Path) -> list[str]:
    """The column of groups, which rows of other tasks don't have."""
    shard = next(iter(sorted(split.glob("*.parquet"))), None)
    return ["group"] if shard is None or "group" in pq.read_schema(shard).names else []


def _encode(
    inputs: list[Input],
    labels: pa.Array,
    teacher_logits: pa.Array,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    words: bool,
) -> list[pa.Array]:
    encoded = encode(tokenizer, inputs, truncation=True, max_length=max_length, return_attention_mask=False)
    nothing = [None] * len(inputs)
    # Of single texts all tokens are of the same type, which is what models take them for without being told.
    types = encoded.get("token_type_ids", nothing) if isinstance(inputs[0], tuple) else nothing
    if words:
        labels = pa.nulls(len(inputs))
    found = word_ids_of(encoded, inputs) if words else nothing
    lists = [pa.array(values, pa.list_(pa.int32())) for values in (encoded["input_ids"], types, found, nothing)]
    return [*lists[:2], labels, teacher_logits, *lists[2:]]


def _windows(
    inputs: list[Input],
    labels: pa.Array,
    teacher_logits: pa.Array,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    classes: int,
    reading: Reading,
) -> list[pa.Array]:
    """The windows of rows, each with its part of the row's label and of the teacher's logits."""
    found: list[tuple[Any, ...]] = []
    rows = zip(task.windows(tokenizer, inputs, reading), labels.to_pylist(), teacher_logits, strict=True)
    for (windows, label, logits), given in zip(rows, inputs, strict=True):
        taught = logits.values.to_numpy().reshape(-1, classes) if logits.is_valid else None
        for window in windows:
            own = taught if taught is None or window.at is None else taught[list(window.covers)]
            found.append(
                (
                    window.features["input_ids"],
                    window.features.get("token_type_ids") if isinstance(given, tuple) else None,
                    None if label is None else _as_list(task.window_target(window, label, classes)),
                    None if own is None else own.ravel(),
                    None,
                    None if window.at is None else list(window.at),
                )
            )
    schema = _schema(_NUMBERS)
    columns = [
        pa.array(list(values), field.type) for values, field in zip(zip(*found, strict=True), schema, strict=True)
    ]
    return [
        pc.list_element(column, 0) if index == 2 and task.classes_per_row else column
        for index, column in enumerate(columns)
    ]


def _as_list(target: Any) -> list[Any]:
    return list(target) if isinstance(target, list | tuple) else [target]


class Collator:
    """Windows to tensors: ids padded to the longest of the batch, labels, and teacher logits where a row has them.

    Rows without teacher logits among others with them have NaN there.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, task: Task, classes: int) -> None:
        self.tokenizer, self.task, self.classes = tokenizer, task, classes

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = pad(self.tokenizer, items, [item["input_ids"] for item in items])
        ids = batch["input_ids"]
        before = padding_before(self.tokenizer, ids.shape[1], [len(item["input_ids"]) for item in items])
        at = [[place + more for place in item.get("at") or []] for item, more in zip(items, before, strict=True)]
        batch["labels"] = self.task.batch_targets([_target(item["label"]) for item in items], ids, at)
        if any("teacher_logits" in item for item in items):
            taught = [item.get("teacher_logits") for item in items]
            batch["teacher_logits"] = self.task.batch_teacher(taught, ids, at, self.classes)
        return batch


def _target(label: Any) -> Any:
    """None for no label."""
    return None if isinstance(label, int) and label == IGNORED else label


def pad(
    tokenizer: PreTrainedTokenizerBase, items: list[dict[str, Any]], ids: list[list[int]]
) -> dict[str, torch.Tensor]:
    """What a model reads of a batch, each of shape (rows, tokens): padded ids, their mask and, of pairs, their types.

    Args:
        tokenizer: knows how to pad.
        items: rows, as :class:`TokenisedRows` has them.
        ids: the ids that the model shall see of each.
    """
    features = {"input_ids": ids}
    if "token_type_ids" in items[0]:
        features["token_type_ids"] = [item["token_type_ids"] for item in items]
    return dict(tokenizer.pad(features, return_tensors="pt"))
