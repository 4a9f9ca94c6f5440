"""Rows of other tasks: tokenised to memory-mapped files, and put together so that each batch is of one task."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.rows.tokenised import Collator, Source, TokenisedRows, tokenise
from components.ml.tasks.task import Reading, Task

TASK = "task"
"""The key of items and batches that names their task."""
Items = list[dict[str, Any]]


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
        collators: by task.
    """

    def __init__(self, collators: Mapping[str, Collator]) -> None:
        self.collators = dict(collators)

    def __call__(self, items: Items) -> dict[str, Any]:
        (task,) = {item[TASK] for item in items}
        plain = [{name: value for name, value in item.items() if name != TASK} for item in items]
        # The task comes last: accelerate takes the size of a batch from its first value.
        return {**self.collators[task](plain), TASK: task}


def read_tasks(
    folder: Path,
    task: Task,
    labels: list[str],
    tokenizer: PreTrainedTokenizerBase,
    scratch: Path,
    reading: Reading,
) -> dict[str, TokenisedRows]:
    """The training and validation rows of a task, by name of the split.

    Args:
        folder: with the folders ``train`` and ``validation``; its name is the task's.
        task: what is learnt.
        labels: the names of a position's logits.
        tokenizer: of the model.
        scratch: the folder for tokenised rows. What an earlier phase of the run left there is taken as it is.
        reading: how long rows are cut.

    Raises:
        UserError: there are no rows, or the tokenizer doesn't know words, as token classification needs it.
    """
    found = {}
    for split in ("train", "validation"):
        path = scratch / f"task-{folder.name}-{split}.arrow"
        rows = (
            TokenisedRows(path)
            if path.exists()
            else tokenise([Source(folder / split)], tokenizer, path, task=task, classes=len(labels), reading=reading)
        )
        if not len(rows):
            raise UserError(
                f"The task '{folder.name}' has no rows in its split {split}.",
                f"Put rows into data.tasks.{folder.name}.{split}, or leave the task out of the phases' `tasks`.",
                "data",
            )
        found[split] = rows
    return found
