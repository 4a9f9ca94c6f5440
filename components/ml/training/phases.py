"""Trains a model through named phases: each with its objective, rows, parameters and optimisation."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, set_seed

from components.ml.adapters.peft_models import check_length, merged
from components.ml.models.scoring import label_names
from components.ml.models.task_models import task_of
from components.ml.reuse.reusing import reuse
from components.ml.rows.tokenised import Splits
from components.ml.tasks.task import Reading
from components.ml.teaching.lessons import Lessons
from components.ml.training.checkpoints import BEST, AfterValidation, PhaseCheckpoints
from components.ml.training.dropout import dropout
from components.ml.training.heads import is_causal
from components.ml.training.history import History
from components.ml.training.learners import Prepared, prepare
from components.ml.training.optimisation import early_stopping, training_arguments
from components.ml.training.phase_data import PhaseData, Reader
from components.ml.training.trainer import PhaseTrainer, Validation
from components.params.data import TARGET
from components.params.phases import Phase
from components.params.stages import Runtime


def run_phases(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequence: Sequence[tuple[str, Phase]],
    *,
    splits: Splits,
    history: Path,
    seed: int,
    runtime: Runtime,
    reading: Reading,
    lessons: Lessons | None = None,
    base_folder: Path | None = None,
    base_name: str = "",
    checkpoints: Path | None = None,
    checkpoint_every: int = 100,
) -> PreTrainedModel | PeftModel:
    """Train ``model`` through ``sequence`` and return it; a PeftModel where the last phase adds adapters.

    Args:
        splits: the rows; those without labels take part in phases with the objectives ``distill`` and ``mlm``.
        history: the JSON lines file to write; phases.json beside it tells what each phase trained, and
            tokenised rows lie there meanwhile, in a folder of their own.
        reading: how long rows are cut.
        lessons: what phases with the objective ``distill`` learn from.
        base_folder: where the objective ``mlm`` looks for a head that fits the encoder; None draws a new one.
        base_name: what an adapter's config calls the model it belongs to.
        checkpoints: a folder to keep checkpoints in, and to resume from; None keeps none. What is there must come
            from the same inputs, parameters, code and runtime. A resumed run ends in the same weights, bit for bit.
        checkpoint_every: optimiser steps, a multiple of 10.

    Raises:
        UserError: a phase has no rows, names a group without rows, or asks for what the model can't do.
    """
    trained: PreTrainedModel | PeftModel = model
    records: list[dict[str, Any]] = []
    history.write_text("", encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=history.parent) as folder:  # /tmp is often small
        task, labels = task_of(model), label_names(model)
        reader = Reader(tokenizer, splits, lessons, task, labels, is_causal(model), reading, Path(folder))
        data = [reader.read(name, phase, seed + index) for index, (name, phase) in enumerate(sequence)]
        steps = [part.steps for part in data]
        for index, (name, phase) in enumerate(sequence):
            set_seed(seed + index)  # adapters and new heads are drawn at random
            whole = merged(trained)
            with dropout(whole, phase.dropout):
                prepared = prepare(whole, phase, data[index], lessons, base_folder, base_name)
                check_length(prepared.trained, reading.max_length)
                place = None if checkpoints is None else checkpoints / f"{index}-{name}"
                counts = sum(steps[:index]), sum(steps[: index + 1]), sum(steps)
                best = Path(folder) / f"{index}-{BEST}"
                kept = None if place is None else PhaseCheckpoints(place, history, best, counts)
                run = _Run(Path(folder), best, seed + index, runtime, kept, checkpoint_every)
                counted = History(history, name, len(data[index].rows), counts[0], counts[2])
                records.append(run.train(name, phase, prepared, data[index], counted))
            trained = prepared.trained.cpu()
    (history.parent / "phases.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    return trained.eval()


@dataclass(frozen=True)
class _Run:
    """How a phase is run, apart from what it learns."""

    scratch: Path
    best: Path
    seed: int
    runtime: Runtime
    kept: PhaseCheckpoints | None
    checkpoint_every: int

    def train(self, name: str, phase: Phase, prepared: Prepared, data: PhaseData, counted: History) -> dict[str, Any]:
        """Train the phase, or take it from where it finished before; returns what it has to say of itself."""
        record = _record(name, phase, prepared, data)
        kept = self.kept
        told = kept.finished(prepared.learner) if kept else None
        if told is None:
            with _reused(name, phase, prepared, data, self.scratch, self.runtime) as ready:
                trainer = self._trainer(phase, prepared, ready)
                trainer.add_callback(counted)
                told = _train(trainer, phase, kept.resumable(prepared.learner) if kept else None)
            if kept:
                kept.finish(prepared.learner, told)
        return record | told

    def _trainer(self, phase: Phase, prepared: Prepared, data: PhaseData) -> PhaseTrainer:
        folder = self.kept.folder if self.kept else self.scratch / f"trainer-{self.seed}"
        every = self.checkpoint_every if self.kept else None
        trainer = PhaseTrainer(
            learner=prepared.learner,
            batches=data.batches,
            validations=data.validations,
            learning_rates=prepared.learning_rates,
            best=self.best if phase.early_stopping else None,
            checkpoints=self.kept,
            args=training_arguments(phase, folder, self.seed, self.runtime, every),
            train_dataset=data.rows,
            eval_dataset=data.rows,  # not used: the Trainer wants to see one
            data_collator=data.collate,
            callbacks=[*prepared.callbacks, *early_stopping(phase), AfterValidation(data.steps_per_epoch)],
        )
        trainer.remove_callback(PrinterCallback)  # the history prints
        return trainer


def _record(name: str, phase: Phase, prepared: Prepared, data: PhaseData) -> dict[str, Any]:
    """What the phase trains, for the log and for phases.json."""
    trains, of = prepared.sizes
    print(f"phase {name}: {trains:,} of {of:,} parameters train on {len(data.rows):,} rows", flush=True)
    return {
        "name": name,
        "objective": phase.objective,
        "trainable_parameters": trains,
        "parameters": of,
        "rows": len(data.rows),
    }


@contextlib.contextmanager
def _reused(
    name: str, phase: Phase, prepared: Prepared, data: PhaseData, scratch: Path, runtime: Runtime
) -> Iterator[PhaseData]:
    """The data with what frozen layers make of them, where that is computed once."""
    prepared.learner.to(torch.device(runtime.device))
    first = next(iter(data.validations))
    held_out = data.validations[first]
    with reuse(
        name,
        prepared.trained,
        data.rows,
        held_out.rows,
        data.collate,
        epochs=phase.epochs,
        folder=scratch,
        budget_gb=runtime.reuse_gb,
        dtype=phase.dtype or runtime.dtype,
        obstacle=_obstacle(phase, prepared),
    ) as found:
        validations = {**data.validations, first: Validation(found.held_out, held_out.metrics)}
        yield replace(data, rows=found.rows, collate=found.collate, validations=validations)


def _obstacle(phase: Phase, prepared: Prepared) -> str | None:
    """Why this phase must compute frozen layers anew each time; None if it needn't."""
    if phase.objective == "mlm":
        return "tokens are masked anew in every epoch"
    if phase.tasks != [TARGET]:
        return "several tasks train at once"
    if getattr(prepared.learner.objective, "terms", None) is not None:
        return "the terms look into them"
    return None


def _train(trainer: PhaseTrainer, phase: Phase, checkpoint: str | None) -> dict[str, Any]:
    """Train to the end, or until the metric no longer gets better; tells how far it got."""
    trainer.train(resume_from_checkpoint=checkpoint)
    told: dict[str, Any] = {"steps": trainer.state.global_step}
    if phase.early_stopping is not None and trainer.best is not None and trainer.state.best_global_step is not None:
        if not trainer.best.exists():
            raise RuntimeError(
                f"the weights of step {trainer.state.best_global_step}, the best, are gone: {trainer.best}"
            )
        trainer.learner.load_state(trainer.best)
        step, metric = trainer.state.best_global_step, phase.early_stopping.metric
        told |= {"best_step": step, "best": {metric: trainer.state.best_metric}}
        print(f"kept the weights of step {step}, the best by {metric}", flush=True)
    return told
