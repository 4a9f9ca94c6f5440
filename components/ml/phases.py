"""Trains a model through named phases: what each one minimises, trains and reads."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
    set_seed,
)

from components.errors import UserError
from components.ml.dropout import dropout
from components.ml.history import History
from components.ml.losses import distillation_loss
from components.ml.rows import Collator, TokenisedRows, tokenise
from components.ml.trainable import add_lora, count_parameters, merged, train_all, train_encoder, train_last_layers
from components.ml.trainer import PhaseTrainer
from components.params import LastLayers, Lora, Phase, Runtime

EVALUATION_BATCH = 64
LOGGED_EVERY = 10
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_LABELS_ONLY = {"alpha": 0.0, "beta": 1.0, "temperature": 1.0}


def run_phases(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequence: Sequence[tuple[str, Phase]],
    *,
    splits: list[tuple[Path, Path | None]],
    validation: Path,
    history: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    distillation: dict[str, float] | None = None,
    base_name: str = "",
) -> PreTrainedModel | PeftModel:
    """Train ``model`` through ``sequence`` and return it; a PeftModel where the last phase adds adapters.

    Args:
        splits: folders of training rows, each with its teacher logits or None; rows without labels
            only take part in phases with the objective ``distill``.
        validation: folder of validation rows; loss and accuracy are recorded after every epoch.
        history: the JSON lines file to append to; tokenised rows lie beside it meanwhile, in a folder of their own.
        distillation: ``temperature``, ``alpha`` and ``beta`` of the objective ``distill``.
        base_name: what an adapter's config calls the model it belongs to.

    Raises:
        UserError: a phase has no rows, names a group without rows, or names layers or modules that the model lacks.
    """
    # Not in the system's folder for temporary files, which is often small.
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=history.parent) as folder:
        read = functools.partial(tokenise, tokenizer=tokenizer, max_length=max_length)
        data = [_rows(name, phase, splits, validation, read, Path(folder)) for name, phase in sequence]
        steps = [_steps(phase, len(rows)) for (_, phase), (rows, _) in zip(sequence, data, strict=True)]
        trained: PreTrainedModel | PeftModel = model
        for index, (name, phase) in enumerate(sequence):
            set_seed(seed + index)  # adapters are drawn at random
            whole = merged(trained)
            with dropout(whole, phase.dropout):
                trained = _make_trainable(whole, phase, base_name)
                trainer = PhaseTrainer(
                    loss=functools.partial(distillation_loss, **_weights(phase, distillation)),
                    model=trained,
                    args=_arguments(phase, Path(folder), seed + index, runtime),
                    train_dataset=data[index][0],
                    eval_dataset=data[index][1],
                    data_collator=Collator(tokenizer),
                    processing_class=tokenizer,
                    compute_metrics=_accuracy,
                    callbacks=[History(history, name, sum(steps[:index]), sum(steps))],
                )
                trainer.remove_callback(PrinterCallback)  # the history prints
                _announce(name, trained, len(data[index][0]))
                trainer.train()
    return trained.cpu().eval()


def _announce(name: str, model: PreTrainedModel | PeftModel, rows: int) -> None:
    trains, of = count_parameters(model)
    print(f"phase {name}: {trains:,} of {of:,} parameters train on {rows:,} rows", flush=True)


def _rows(
    name: str,
    phase: Phase,
    splits: list[tuple[Path, Path | None]],
    validation: Path,
    read: Callable[..., TokenisedRows],
    folder: Path,
) -> tuple[TokenisedRows, TokenisedRows]:
    """The rows that a phase trains on and those that it is validated on.

    Raises:
        UserError: one of the phase's groups has no training rows, or all of them together have no validation rows.
    """
    trained = read(_splits_of(phase, splits), scratch=folder / f"{name}.arrow", groups=phase.groups)
    if trained.absent or not len(trained):
        raise UserError(
            f"The phase '{name}' has no training rows{_of_groups(trained.absent)}.",
            f"Name groups that the training rows have in `on` of the phase '{name}', or use `on: all`.",
            "parameters",
        )
    held_out = read([(validation, None)], scratch=folder / f"{name}.validation.arrow", groups=phase.groups)
    if not len(held_out):
        raise UserError(
            f"The phase '{name}' has no validation rows{_of_groups(held_out.absent)}.",
            "Put such rows into the file data.validation, let data.split.validation cut off more of the training rows, "
            f"or train the phase '{name}' on other groups (`on`).",
            "data",
        )
    return trained, held_out


def _of_groups(groups: Sequence[str]) -> str:
    return f" of the group{'s' * (len(groups) > 1)} {', '.join(groups)}" if groups else ""


def _splits_of(phase: Phase, splits: list[tuple[Path, Path | None]]) -> list[tuple[Path, Path | None]]:
    """Only distillation can learn from rows without labels."""
    if phase.objective == "distill":
        return splits
    return [(split, None) for split, _ in splits if split.name != "unlabelled"]


def _weights(phase: Phase, distillation: dict[str, float] | None) -> dict[str, Any]:
    return _LABELS_ONLY if phase.objective == "labels" or distillation is None else distillation


def _make_trainable(model: PreTrainedModel, phase: Phase, base_name: str) -> PreTrainedModel | PeftModel:
    chosen = phase.trainable
    if isinstance(chosen, Lora):
        settings = chosen.lora
        return add_lora(
            model,
            r=settings.r,
            alpha=settings.alpha,
            dropout=settings.dropout,
            targets=settings.targets,
            base_name=base_name,
        )
    if isinstance(chosen, LastLayers):
        train_last_layers(model, chosen.last_layers)
    elif chosen == "encoder":
        train_encoder(model)
    elif chosen == "head":
        train_last_layers(model, 0)
    else:
        train_all(model)
    return model


def _steps(phase: Phase, rows: int) -> int:
    """Optimiser steps, as the Trainer counts them."""
    per_epoch = max(math.ceil(math.ceil(rows / phase.batch_size) / phase.accumulate), 1)
    return math.ceil(phase.epochs * per_epoch)


def _arguments(phase: Phase, folder: Path, seed: int, runtime: Runtime) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=phase.epochs,
        per_device_train_batch_size=phase.batch_size,
        per_device_eval_batch_size=EVALUATION_BATCH,
        gradient_accumulation_steps=phase.accumulate,
        learning_rate=phase.lr,
        lr_scheduler_type=_SCHEDULES[phase.schedule],
        warmup_steps=phase.warmup,
        weight_decay=phase.weight_decay,
        max_grad_norm=phase.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=runtime.dtype == "bfloat16",
        use_cpu=runtime.device == "cpu",
        seed=seed,
        data_seed=seed,
        eval_strategy="epoch",
        logging_steps=LOGGED_EVERY,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=runtime.device == "cuda",
    )


def _accuracy(prediction: EvalPrediction) -> dict[str, Any]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((np.argmax(logits, axis=-1) == prediction.label_ids).mean())}
