"""A phase's optimisation in the terms of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments

from components.ml.tasks.table import TASKS
from components.params.phases import Phase
from components.params.stages import Runtime

EVALUATION_BATCH = 64
LOGGED_EVERY = 10
_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
    "polynomial": "polynomial",
    "reduce_on_plateau": "reduce_lr_on_plateau",
}
_LOSSES = {"perplexity", *(name for task in TASKS.values() for name in task.errors)}
PLATEAU = {"factor": 0.5, "patience": 1}
"""reduce_on_plateau halves the learning rate when the metric wasn't better in two validations running."""
_LAYERWISE = ("galore", "apollo")
"""Optimisers that want to be told which layers they are for."""


def training_arguments(
    phase: Phase, folder: Path, seed: int, runtime: Runtime, checkpoint_every: int | None
) -> TrainingArguments:
    """The Trainer's arguments.

    Args:
        phase: what to do.
        folder: where checkpoints go.
        seed: of dropout and adapters.
        runtime: device and number format.
        checkpoint_every: optimiser steps; None keeps no checkpoints. A multiple of ``LOGGED_EVERY``, since the mean
            loss that is logged starts anew with a resumed run.
    """
    dtype = phase.dtype or runtime.dtype
    metric = phase.early_stopping.metric if phase.early_stopping else "loss"
    greater = metric.rsplit("/", 1)[-1] not in _LOSSES
    plateau = phase.schedule == "reduce_on_plateau"
    if plateau:
        scheduling: dict[str, Any] = {"lr_scheduler_kwargs": PLATEAU | {"mode": "max" if greater else "min"}}
    else:
        scheduling = {"warmup_steps": phase.warmup}
    layers: dict[str, Any] = {"optim_target_modules": "all-linear"} if phase.optimizer.startswith(_LAYERWISE) else {}
    saving: dict[str, Any] = {"save_strategy": "no"}
    if checkpoint_every is not None:
        saving = {"save_strategy": "steps", "save_steps": checkpoint_every, "save_total_limit": 2}
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=phase.epochs,
        per_device_train_batch_size=phase.batch_size,
        per_device_eval_batch_size=EVALUATION_BATCH,
        gradient_accumulation_steps=phase.accumulate,
        learning_rate=phase.lr,
        lr_scheduler_type=_SCHEDULES[phase.schedule],
        weight_decay=phase.weight_decay,
        max_grad_norm=phase.max_grad_norm,
        optim=phase.optimizer,
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        use_cpu=runtime.device == "cpu",
        seed=seed,
        data_seed=seed,
        eval_strategy="epoch",
        metric_for_best_model=metric,
        greater_is_better=greater,
        restore_callback_states_from_checkpoint=True,
        logging_steps=LOGGED_EVERY,
        logging_first_step=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=runtime.device == "cuda",
        **saving,
        **scheduling,
        **layers,
    )
    # One GPU even where there are more: the Trainer would split batches among them (DataParallel), which changes the
    # weights, and how many GPUs there are is in no result's identity.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def early_stopping(phase: Phase) -> list[TrainerCallback]:
    """What ends the phase when its metric no longer gets better; none where it shall run to its end."""
    settings = phase.early_stopping
    return [] if settings is None else [EarlyStoppingCallback(settings.patience, settings.min_delta)]
