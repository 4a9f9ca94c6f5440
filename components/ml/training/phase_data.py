"""What a phase reads: its training rows in batches, the rows it is validated on, how both become tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.rows.task_rows import TaskCollator, TaskRows, read_tasks
from components.ml.rows.tokenised import Collator, Source, Splits, TokenisedRows, rows_of, tokenise
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading, Task
from components.ml.teaching.lessons import Lessons
from components.ml.teaching.pseudo_labels import select
from components.ml.training.batches import LengthBatches
from components.ml.training.language import LanguageCollator, NumberedRows, language_metrics
from components.ml.training.multitask import TaskBatches
from components.ml.training.objectives import balanced_weights
from components.ml.training.trainer import Metrics, Validation
from components.params.data import TARGET
from components.params.phases import Phase


@dataclass(frozen=True)
class PhaseData:
    """Everything that a phase reads.

    ``batches`` are those of one epoch. ``class_weights`` has shape (classes,), None where all count the same.
    ``tasks`` describes the tasks besides the target: name -> {"type", "labels"}.
    """

    rows: Any
    batches: Any
    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]]
    validations: Mapping[str, Validation]
    epochs: float
    accumulate: int
    class_weights: Tensor | None = None
    tasks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps, as the Trainer counts them."""
        return max(math.ceil(len(self.batches) / self.accumulate), 1)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole phase, unless it stops early."""
        return math.ceil(self.epochs * self.steps_per_epoch)


@dataclass(frozen=True)
class Reader:
    """Reads what phases ask for.

    Args:
        tokenizer: of the model that trains.
        splits: the rows.
        lessons: what the teacher says of them; None where no phase distils.
        task: what the model is for.
        labels: the names of a position's logits, in order.
        causal: whether the architecture's language model predicts the next token.
        reading: how long rows are cut.
        folder: for tokenised rows.
    """

    tokenizer: PreTrainedTokenizerBase
    splits: Splits
    lessons: Lessons | None
    task: Task
    labels: list[str]
    causal: bool
    reading: Reading
    folder: Path

    def read(self, name: str, phase: Phase, seed: int) -> PhaseData:
        """The data of a phase.

        Raises:
            UserError: there are no rows to train or to be validated on, or no such labels or groups.
        """
        if phase.objective == "mlm":
            return self._language(name, phase, seed)
        if phase.tasks != [TARGET]:
            return self._tasks(name, phase, seed)
        target = self._tokenise(name, phase, self._sources(name, phase))
        validation = self._validation(name, phase)
        weights = self._class_weights(phase, target)
        batches = self._batches(phase, target.lengths, seed)
        collate = Collator(self.tokenizer, self.task, len(self.labels))
        validations = {TARGET: Validation(validation, self._metrics(self.task, self.labels))}
        return PhaseData(target, batches, collate, validations, phase.epochs, phase.accumulate, weights)

    def _language(self, name: str, phase: Phase, seed: int) -> PhaseData:
        """All texts, labelled or not."""
        words = phase.mask.whole_words
        sources = [Source(split, taught=False) for split in (self.splits.train, self.splits.unlabelled)]
        rows = self._tokenise(name, phase, sources, words=words)
        validation = self._validation(name, phase, words=words)
        batches = self._batches(phase, rows.lengths, seed)
        numbered = NumberedRows(rows)
        batches.listeners.append(numbered.set_epoch)
        collate = LanguageCollator(self.tokenizer, phase.mask, seed, causal=self.causal)
        validations = {TARGET: Validation(NumberedRows(validation, fixed=True), language_metrics)}
        return PhaseData(numbered, batches, collate, validations, phase.epochs, phase.accumulate)

    def _tasks(self, name: str, phase: Phase, seed: int) -> PhaseData:
        """The rows of several tasks, each batch of one of them."""
        known = json.loads((self.splits.tasks / "tasks.json").read_text(encoding="utf-8"))
        rows: dict[str, Any] = {}
        validations: dict[str, Validation] = {}
        collators = {TARGET: Collator(self.tokenizer, self.task, len(self.labels))}
        weights = None
        held_out: Any
        metrics: Metrics
        for task in phase.tasks:
            if task == TARGET:
                rows[task] = self._tokenise(name, phase, self._sources(name, phase))
                held_out, metrics = self._validation(name, phase), self._metrics(self.task, self.labels)
                weights = self._class_weights(phase, rows[task])
            else:
                kind, labels = TASKS[known[task]["type"]], known[task]["labels"]
                read = read_tasks(self.splits.tasks / task, kind, labels, self.tokenizer, self.folder, self.reading)
                rows[task], held_out = read["train"], read["validation"]
                metrics, collators[task] = self._metrics(kind, labels), Collator(self.tokenizer, kind, len(labels))
            validations[task] = Validation(TaskRows({task: held_out}), metrics)
        together = TaskRows(rows)
        own = {task: self._batches(phase, rows[task].lengths, seed + index) for index, task in enumerate(phase.tasks)}
        batches = TaskBatches(own, together, phase.sampling, seed)
        collate = TaskCollator(collators)
        others = {task: known[task] for task in phase.tasks if task != TARGET}
        return PhaseData(together, batches, collate, validations, phase.epochs, phase.accumulate, weights, others)

    def _metrics(self, task: Task, labels: list[str]) -> Metrics:
        return partial(task.validation, names=labels)

    def _batches(self, phase: Phase, lengths: Sequence[int], seed: int) -> LengthBatches:
        return LengthBatches(
            lengths, rows=phase.batch_size, tokens=phase.batch_tokens, accumulate=phase.accumulate, seed=seed
        )

    def _sources(self, name: str, phase: Phase) -> list[Source]:
        """Rows without labels only take part in distillation."""
        if phase.objective == "labels" or self.lessons is None:
            return [Source(self.splits.train)]
        logits, pseudo = self.lessons.logits, self.lessons.settings.pseudo_labels
        sources = [Source(self.splits.train, logits / self.splits.train.name)]
        if pseudo.kind == "none":
            return sources
        pool = logits / self.splits.unlabelled.name
        by_class = self.task.classes_per_row
        if not by_class and (pseudo.kind == "hard" or pseudo.max_per_class is not None):
            raise UserError(
                f"pseudo_labels: kind hard and max_per_class are for tasks with one class a row; got {self.task.name}.",
                "Set pseudo_labels.kind to soft or none, and max_per_class to null.",
                "parameters",
            )
        selection = select(pool, pseudo, rows_of(self.splits.unlabelled, phase.groups), by_class=by_class)
        print(f"phase {name}: {selection.summary.describe(self.labels if by_class else None)}", flush=True)
        return [*sources, Source(self.splits.unlabelled, pool, selection)]

    def _tokenise(self, name: str, phase: Phase, sources: list[Source], words: bool = False) -> TokenisedRows:
        path = self.folder / f"phase-{name}.arrow"
        rows = self._rows(sources, path, phase, words)
        if rows.absent or not len(rows):
            raise UserError(
                f"The phase '{name}' has no training rows{_of_groups(rows.absent)}.",
                f"Name groups that the training rows have in `on` of the phase '{name}', or use `on: all`.",
                "parameters",
            )
        return rows

    def _rows(self, sources: list[Source], path: Path, phase: Phase, words: bool) -> TokenisedRows:
        return tokenise(
            sources,
            self.tokenizer,
            path,
            task=self.task,
            classes=len(self.labels),
            reading=self.reading,
            groups=phase.groups,
            words=words,
        )

    def _validation(self, name: str, phase: Phase, words: bool = False) -> TokenisedRows:
        path = self.folder / f"phase-{name}.validation.arrow"
        rows = self._rows([Source(self.splits.validation)], path, phase, words)
        if not len(rows):
            raise UserError(
                f"The phase '{name}' has no validation rows{_of_groups(rows.absent)}.",
                "Put such rows into the file data.validation, let data.split.validation cut off more of the training "
                f"rows, or train the phase '{name}' on other groups (`on`).",
                "data",
            )
        return rows

    def _class_weights(self, phase: Phase, rows: TokenisedRows) -> Tensor | None:
        """One weight for each class.

        Raises:
            UserError: weights are given for other classes than there are, or the task has no classes to weight.
        """
        if phase.class_weights is None:
            return None
        if not self.task.takes_class_weights:
            raise UserError(
                f"class_weights: the loss of {self.task.name} has no classes to weight.",
                "Set class_weights to null.",
                "parameters",
            )
        if phase.class_weights == "balanced":
            return balanced_weights(torch.from_numpy(rows.labels.copy()), len(self.labels))
        if set(phase.class_weights) != set(self.labels):
            raise UserError(
                f"class_weights: expected a weight for each of {', '.join(self.labels)}, "
                f"got {', '.join(phase.class_weights)}.",
                "Name every class once.",
                "parameters",
            )
        return torch.tensor([phase.class_weights[label] for label in self.labels])


def _of_groups(groups: Sequence[str]) -> str:
    return f" of the group{'s' * (len(groups) > 1)} {', '.join(groups)}" if groups else ""
