"""The weighted mean of teachers' logits; rows that the same teacher has scored before come from its store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from components.errors import UserError
from components.ml.models.folders import check_folder
from components.ml.models.scoring import label_names, load_classifier, score, sound
from components.ml.models.task_models import task_of
from components.ml.rows.inputs import Input, input_key
from components.ml.tasks.task import Reading, Task
from components.ml.teaching.logit_store import LogitStore, prune, teacher_key
from components.params.stages import Runtime
from components.runtime import installed

PROGRESS_SECONDS = 30.0
Inputs = Callable[[], Iterator[tuple[int, list[Input]]]]
"""Goes through all rows, some at a time: the place of the first of them, and they themselves."""
_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy")


@dataclass(frozen=True)
class Teacher:
    """A tuned model: ``weight`` is its share of the mean, ``key`` the key of params.yaml that names ``folder``."""

    name: str
    folder: Path
    weight: float
    key: str


@dataclass(frozen=True)
class Scoring:
    """How rows are scored, and where what was scored is kept."""

    task: Task
    labels: list[str]
    runtime: Runtime
    reading: Reading
    batch_size: int
    store: Path


@dataclass(frozen=True)
class RowLogits:
    """Logits of rows, one row's positions after another's.

    Args:
        values: float64 of shape (positions of all rows, classes), which may lie on disk.
        starts: where each row begins, and where the last one ends: int64 of shape (rows + 1,).
    """

    values: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, place: int) -> np.ndarray:
        """The logits of a row, of shape (positions, classes); to be changed in place."""
        return np.asarray(self.values[self.starts[place] : self.starts[place + 1]])

    def rows(self, first: int, count: int) -> list[np.ndarray]:
        """The logits of some rows."""
        return [self.row(place) for place in range(first, first + count)]


def average(teachers: Sequence[Teacher], inputs: Inputs, logits: RowLogits, scoring: Scoring) -> None:
    """Add each teacher's logits times its share of all weights to ``logits``; positions that it cut off become NaN.

    Args:
        teachers: those whose mean it is, in any order; one at a time is in memory.
        inputs: the rows of ``logits``, some at a time.
        logits: zeros to fill, the classes in the order of ``scoring.labels``.
        scoring: how.

    Raises:
        UserError: a teacher can't be loaded, was tuned for another task or other labels, gives logits that are not
            finite, or has other positions than the first one.
    """
    total = sum(teacher.weight for teacher in teachers)
    used = []
    for teacher in sorted(teachers, key=lambda teacher: teacher.name):  # a mapping's order means nothing to DVC
        used.append(_add(teacher, teacher.weight / total, inputs, logits, scoring))
    prune(scoring.store, used)


def _add(teacher: Teacher, share: float, inputs: Inputs, logits: RowLogits, scoring: Scoring) -> str:
    """Add one teacher's part; gives the name of its store."""
    check_folder(teacher.folder, scoring.reading.max_length, teacher.key)
    model, tokenizer = load_classifier(teacher.folder, torch.device(scoring.runtime.device))
    if (own := task_of(model)).name != scoring.task.name:
        raise UserError(
            f"The teacher {teacher.name} ({teacher.folder}) was tuned for {own.name}; expected {scoring.task.name}.",
            f"Leave {teacher.name} out of label.teachers, or give a model of that task ({teacher.key}).",
            "parameters",
        )
    columns = _columns(teacher, label_names(model), scoring.labels)

    def keep(places: Sequence[int], found: Sequence[np.ndarray]) -> None:
        for place, one in zip(places, found, strict=True):
            if not sound(one):
                raise UserError(
                    f"The teacher {teacher.name} ({teacher.folder}) gives logits that are not finite.",
                    f"Its weights are damaged: train it again, or give others ({teacher.key}).",
                    "model",
                )
            row = logits.row(place)
            if len(one) > len(row):
                raise UserError(
                    f"The teacher {teacher.name} ({teacher.folder}) cuts rows into other tokens than the first.",
                    f"For {scoring.task.name}, give teachers with one tokenizer ({teacher.key}).",
                    "parameters",
                )
            row[: len(one)] += share * one[:, columns].astype(np.float64)
            row[len(one) :] = np.nan

    name = teacher_key(teacher.folder, _facts(scoring, str(model.dtype)), scoring.task)
    with LogitStore(scoring.store, name, len(columns)) as store:
        work = _Work(store, keep)
        missing = work.missing(inputs)
        batches = score(model, tokenizer, missing, reading=scoring.reading, batch_size=scoring.batch_size, checked=True)
        progress = _Progress(teacher.name, work, len(logits))
        for tags, scored in batches:
            keep([place for place, _ in tags], scored)
            store.put([key for _, key in tags], scored)
            progress.add(len(tags))
    progress.end()
    return name


@dataclass
class _Work:
    """Takes from the store what is there, and hands out the rest."""

    store: LogitStore
    keep: Callable[[Sequence[int], Sequence[np.ndarray]], None]
    found: int = 0

    def missing(self, inputs: Inputs) -> Iterator[tuple[tuple[int, bytes], Input]]:
        """The rows that are yet to be scored, each with its place and its key."""
        for first, part in inputs():
            keys = [input_key(each) for each in part]
            known = {first + place: one for place, one in enumerate(self.store.get(keys)) if one is not None}
            self.keep(list(known), list(known.values()))
            self.found += len(known)
            for place, (key, each) in enumerate(zip(keys, part, strict=True), first):
                if place not in known:
                    yield (place, key), each


@dataclass
class _Progress:
    """Says how far it is, now and then, and in the end."""

    name: str
    work: _Work
    rows: int
    scored: int = 0
    begun: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def add(self, count: int) -> None:
        self.scored += count
        if time.monotonic() - self.told >= PROGRESS_SECONDS:
            self.told = time.monotonic()
            self._tell("so far ")

    def end(self) -> None:
        self._tell("")

    def _tell(self, when: str) -> None:
        rate = self.scored / max(time.monotonic() - self.begun, 1e-9)
        speed = f", {self.scored:,} scored ({rate:,.0f} a second)" if self.scored else ""
        print(
            f"{self.name}: {when}{self.work.found:,} of {self.rows:,} rows found in the store{speed}",
            flush=True,
        )


def _columns(teacher: Teacher, found: list[str], labels: list[str]) -> list[int]:
    """Where each label stands among the teacher's.

    Raises:
        UserError: the teacher knows other labels.
    """
    if sorted(found) != sorted(labels):
        raise UserError(
            f"The teacher {teacher.name} ({teacher.folder}) was tuned for the labels {found}; expected {labels}, "
            "in any order.",
            f"Leave {teacher.name} out of label.teachers, or give a model that was tuned for these labels "
            f"({teacher.key}).",
            "parameters",
        )
    return [found.index(label) for label in labels]


def _facts(scoring: Scoring, dtype: str) -> dict[str, object]:
    """What logits follow from besides the model and the machine."""
    return {
        "max_length": scoring.reading.max_length,
        "stride": scoring.reading.stride,
        "pooling": scoring.reading.pooling,
        "batch_size": scoring.batch_size,
        "device": scoring.runtime.device,
        "threads": scoring.runtime.threads,
        "dtype": dtype,
        "libraries": installed(_LIBRARIES),
    }
