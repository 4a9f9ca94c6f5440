"""The task-specific fine-tune of the student on one group; adapters are kept beside the merged model."""

from __future__ import annotations

import copy
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
    """Write ``model/`` (a transformers folder, adapters merged) and ``history.jsonl``.

    If the last phase trains adapters, also ``adapter/`` (peft); it belongs to ``student``, or, where phases
    before it changed that, to ``base/`` beside it.
    """
    use_device(runtime.device, runtime.threads)
    set_seed(seed)
    model, tokenizer = load_classifier(student)
    history = output / "history.jsonl"
    history.touch()
    base = output / "base" if len(settings.order) > 1 else student
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
        base_name=(student if base == student else output.with_suffix("") / "base").as_posix(),  # output is renamed
    )
    if isinstance(trained, PeftModel):
        save_adapter(trained, output / "adapter")
        if base != student:
            save(copy.deepcopy(trained).unload(), tokenizer, base)
    save(merged(trained), tokenizer, output / "model")
    if (output / "adapter").exists():
        _check_agreement(base, output, tokenizer, validation, max_length)


def _check_agreement(
    base: Path, output: Path, tokenizer: PreTrainedTokenizerBase, validation: Path, max_length: int
) -> None:
    """Both written forms, read back, must give the same logits (peft silently drops what it wasn't told to save)."""
    texts = first_texts(validation, CHECKED_ROWS)
    plain, _ = load_classifier(base)
    adapted = PeftModel.from_pretrained(plain, str(output / "adapter")).eval()
    whole, _ = load_classifier(output / "model")
    expected, found = (predict_logits(model, tokenizer, texts, max_length=max_length) for model in (adapted, whole))
    difference = float(np.abs(expected - found).max())
    if difference > TOLERANCE:
        raise RuntimeError(
            f"The merged model's logits differ from the adapter's by up to {difference:.2g}, expected {TOLERANCE:g}."
        )
