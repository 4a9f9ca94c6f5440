"""The task-specific fine-tune of the student on one group; adapters are kept beside the merged model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, set_seed

from components.ml.device import use_device
from components.ml.models import save, save_adapter
from components.ml.phases import run_phases
from components.ml.rows import first_texts
from components.ml.scoring import load_classifier, predict_logits
from components.ml.trainable import merged
from components.params import Finetune, Runtime

CHECKED_ROWS = 64
TOLERANCE = 1e-4
"""Greatest difference of a logit between adapter and merged model: float32 rounding, not a lost weight."""


def run(
    *,
    train: Path,
    validation: Path,
    student: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    settings: Finetune,
    output: Path,
) -> None:
    """Write ``model/`` (merged, a transformers folder), ``adapter/`` (peft) and ``history.jsonl``."""
    use_device(runtime.device, runtime.threads)
    set_seed(seed)
    model, tokenizer = load_classifier(student)
    history = output / "history.jsonl"
    history.touch()
    trained = run_phases(
        model,
        tokenizer,
        settings.sequence,
        splits=[(train, None)],
        validation=validation,
        history=history,
        seed=seed,
        runtime=runtime,
        max_length=max_length,
        base_name=student.as_posix(),
    )
    if isinstance(trained, PeftModel):
        save_adapter(trained, output / "adapter")
    save(merged(trained), tokenizer, output / "model")
    if (output / "adapter").exists():
        _check_agreement(student, output, tokenizer, validation, max_length)


def _check_agreement(
    student: Path, output: Path, tokenizer: PreTrainedTokenizerBase, validation: Path, max_length: int
) -> None:
    """Both written forms, read back, must give the same logits (peft silently drops what it wasn't told to save)."""
    texts = first_texts(validation, CHECKED_ROWS)
    base, _ = load_classifier(student)
    adapted = PeftModel.from_pretrained(base, str(output / "adapter")).eval()
    whole, _ = load_classifier(output / "model")
    expected, found = (predict_logits(model, tokenizer, texts, max_length=max_length) for model in (adapted, whole))
    difference = float(np.abs(expected - found).max())
    if difference > TOLERANCE:
        raise RuntimeError(
            f"The merged model's logits differ from the adapter's by up to {difference:.2g}, expected {TOLERANCE:g}."
        )
