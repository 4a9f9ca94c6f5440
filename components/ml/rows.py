"""Tokenised rows, memory-mapped: nothing holds all texts as Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.losses import IGNORED

READ_ROWS = 4096
_SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("label", pa.int32()), ("teacher_logits", pa.list_(pa.float32()))]
)


class TokenisedRows(Dataset[dict[str, Any]]):
    """Rows ready for a model, read from a memory-mapped Arrow file.

    An item holds ``input_ids`` (list of int), ``label`` (int, ``IGNORED`` for unlabelled rows)
    and, where there are any, ``teacher_logits`` (list of float, one per class).
    ``absent`` names the groups that were asked for and have no row.
    """

    def __init__(self, path: Path, absent: Sequence[str] = ()) -> None:
        self.absent = absent
        self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().unify_dictionaries()
        self.lengths: list[int] = pc.list_value_length(self.table["input_ids"]).to_pylist()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {name: self.table[name][index].as_py() for name in ("input_ids", "label")}
        item["label"] = IGNORED if item["label"] is None else item["label"]
        logits = self.table["teacher_logits"][index].as_py()
        return item if logits is None else item | {"teacher_logits": logits}


def read_batches(split: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a folder of Parquet shards, in order, a few thousand at a time."""
    for shard in sorted(split.glob("*.parquet")):
        yield from read_shard(shard, columns)


def read_shard(shard: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of one Parquet file, in order, a few thousand at a time."""
    with pq.ParquetFile(shard) as file:
        yield from file.iter_batches(READ_ROWS, columns=columns)


def first_texts(split: Path, count: int) -> list[str]:
    """The first ``count`` texts of a split, or all there are.

    Raises:
        UserError: the split has no rows.
    """
    texts: list[str] = next((batch["text"].to_pylist() for batch in read_batches(split, ["text"])), [])
    if not texts:
        raise UserError(
            f"The split {split} has no rows.", f"Give it rows: data.{split.name} or data.split in params.yaml.", "data"
        )
    return texts[:count]


def tokenise(
    splits: list[tuple[Path, Path | None]],
    tokenizer: PreTrainedTokenizerBase,
    scratch: Path,
    *,
    max_length: int,
    groups: list[str] | None = None,
) -> TokenisedRows:
    """Tokenise the rows of some splits, each with its folder of teacher logits or None.

    Args:
        splits: folders of Parquet shards with text, label and group; logits in the same row order.
        scratch: the Arrow file to write.
        max_length: tokens; longer texts are cut.
        groups: keep only rows of these groups; None keeps all.

    Raises:
        UserError: the logits belong to other rows.
    """
    absent = dict.fromkeys(groups or [])
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for split, logits in splits:
            for batch, teacher_logits in _aligned(split, logits):
                if groups is not None:
                    chosen = pc.is_in(batch["group"], pa.array(groups, pa.string()))
                    batch, teacher_logits = batch.filter(chosen), teacher_logits.filter(chosen)
                    for found in pc.unique(batch["group"]).to_pylist():
                        absent.pop(found, None)
                if batch.num_rows:
                    writer.write_batch(_encode(batch, teacher_logits, tokenizer, max_length))
    return TokenisedRows(scratch, list(absent))


def _aligned(split: Path, logits: Path | None) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Batches of rows beside their teacher logits (nulls where there is no folder of logits)."""
    wanted = ["row", "text", "label", "group"]
    if logits is None:
        for batch in read_batches(split, wanted):
            yield batch, pa.nulls(batch.num_rows, pa.list_(pa.float32()))
        return
    for batch, scored in zip_longest(read_batches(split, wanted), read_batches(logits)):
        if batch is None or scored is None or not batch["row"].equals(scored["row"]):
            raise UserError(
                f"The logits in {logits} belong to other rows than {split} holds.",
                "Run the label stage again: `dvc repro -f -s label`.",
                "data",
            )
        yield batch, scored["logits"].cast(pa.list_(pa.float32()))


def _encode(
    batch: pa.RecordBatch, teacher_logits: pa.Array, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> pa.RecordBatch:
    encoded = tokenizer(batch["text"].to_pylist(), truncation=True, max_length=max_length, return_attention_mask=False)
    ids = pa.array(encoded["input_ids"], pa.list_(pa.int32()))
    return pa.record_batch([ids, batch["label"], teacher_logits], schema=_SCHEMA)


class Collator:
    """Rows to tensors: ids padded to the longest of the batch, labels, teacher logits if every row has them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = {"input_ids": [item["input_ids"] for item in items]}
        batch = dict(self.tokenizer.pad(ids, return_tensors="pt"))
        batch["labels"] = torch.tensor([item["label"] for item in items])
        if all("teacher_logits" in item for item in items):
            batch["teacher_logits"] = torch.tensor([item["teacher_logits"] for item in items])
        return batch
