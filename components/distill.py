"""The student: some of the teacher's layers, trained on its logits over the labelled rows and the pool."""

from __future__ import annotations

from pathlib import Path

from transformers import set_seed

from components.ml.device import use_device
from components.ml.models import save
from components.ml.phases import run_phases
from components.ml.scoring import load_classifier
from components.ml.students import build_student
from components.ml.trainable import merged
from components.params import Distill, Runtime


def run(
    *,
    train: Path,
    unlabelled: Path,
    validation: Path,
    teacher_logits: Path,
    teacher: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    settings: Distill,
    output: Path,
) -> None:
    """Write ``model/`` (a transformers folder) and ``history.jsonl``."""
    use_device(runtime.device, runtime.threads)
    set_seed(seed)
    teacher_model, tokenizer = load_classifier(teacher)
    student = build_student(teacher_model, settings.student.layers, settings.student.take)
    trained = run_phases(
        student,
        tokenizer,
        settings.sequence,
        splits=[(split, teacher_logits / split.name) for split in (train, unlabelled)],
        validation=validation,
        history=output / "history.jsonl",
        seed=seed,
        runtime=runtime,
        max_length=max_length,
        distillation={"temperature": settings.temperature, "alpha": settings.alpha, "beta": settings.beta},
    )
    save(merged(trained), tokenizer, output / "model")
