"""The weighted mean of teachers' logits; texts that the same teacher has scored before come from its store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from components.errors import UserError
from components.ml.models.folders import check_folder
from components.ml.models.scoring import label_names, load_classifier, score
from components.ml.rows.inputs import Input, input_key
from components.ml.teaching.logit_store import LogitStore, prune, teacher_key
from components.params.stages import Runtime
from components.runtime import installed

PROGRESS_SECONDS = 30.0
Texts = Callable[[], Iterator[tuple[int, list[Input]]]]
"""Goes through all texts or pairs, some at a time: the place of the first of them, and they themselves."""
_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy")


@dataclass(frozen=True)
class Teacher:
    """A tuned classifier: ``weight`` is its share of the mean, ``key`` the key of params.yaml that names ``folder``."""

    name: str
    folder: Path
    weight: float
    key: str


@dataclass(frozen=True)
class Scoring:
    """How texts are scored, and where what was scored is kept."""

    labels: list[str]
    runtime: Runtime
    max_length: int
    batch_size: int
    store: Path


def average(teachers: Sequence[Teacher], texts: Texts, logits: np.ndarray, scoring: Scoring) -> None:
    """Add each teacher's logits times its share of all weights to ``logits``.

    Args:
        teachers: those whose mean it is, in any order; one at a time is in memory.
        texts: the rows of ``logits``, some at a time.
        logits: float64 zeros of shape (rows, classes) to fill, the classes in the order of ``scoring.labels``.
        scoring: how.

    Raises:
        UserError: a teacher can't be loaded, was tuned for other labels, or gives logits that are not finite.
    """
    total = sum(teacher.weight for teacher in teachers)
    used = []
    for teacher in sorted(teachers, key=lambda teacher: teacher.name):  # a mapping's order means nothing to DVC
        used.append(_add(teacher, teacher.weight / total, texts, logits, scoring))
    prune(scoring.store, used)


def _add(teacher: Teacher, share: float, texts: Texts, logits: np.ndarray, scoring: Scoring) -> str:
    """Add one teacher's part; gives the name of its store."""
    check_folder(teacher.folder, scoring.max_length, teacher.key)
    model, tokenizer = load_classifier(teacher.folder, torch.device(scoring.runtime.device))
    columns = _columns(teacher, label_names(model), scoring.labels)

    def keep(places: np.ndarray, found: np.ndarray) -> None:
        if not np.isfinite(found).all():
            raise UserError(
                f"The teacher {teacher.name} ({teacher.folder}) gives logits that are not finite.",
                f"Its weights are damaged: train it again, or give others ({teacher.key}).",
                "model",
            )
        logits[places] += share * found[:, columns].astype(np.float64)

    name = teacher_key(teacher.folder, _facts(scoring, str(model.dtype)))
    with LogitStore(scoring.store, name, len(columns)) as store:
        work = _Work(store, keep)
        missing = work.missing(texts)
        sizes = {"max_length": scoring.max_length, "batch_size": scoring.batch_size}
        batches = score(model, tokenizer, missing, **sizes, checked=True)
        progress = _Progress(teacher.name, work, len(logits))
        for tags, scored in batches:
            keep(np.array([place for place, _ in tags]), scored)
            store.put([key for _, key in tags], scored)
            progress.add(len(tags))
    progress.end()
    return name


@dataclass
class _Work:
    """Takes from the store what is there, and hands out the rest."""

    store: LogitStore
    keep: Callable[[np.ndarray, np.ndarray], None]
    found: int = 0

    def missing(self, texts: Texts) -> Iterator[tuple[tuple[int, bytes], Input]]:
        """The texts that are yet to be scored, each with its place and its key."""
        for first, part in texts():
            keys = [input_key(each) for each in part]
            there, known = self.store.get(keys)
            self.keep(first + np.flatnonzero(there), known[there])
            self.found += int(there.sum())
            for place in np.flatnonzero(~there).tolist():
                yield (first + place, keys[place]), part[place]


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
        "max_length": scoring.max_length,
        "batch_size": scoring.batch_size,
        "device": scoring.runtime.device,
        "threads": scoring.runtime.threads,
        "dtype": dtype,
        "libraries": installed(_LIBRARIES),
    }
