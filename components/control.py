"""The control: the same student trained the same way on true labels alone, to show what distillation gains."""

from __future__ import annotations

from pathlib import Path

from transformers import set_seed

from components.ml.device import use_device
from components.ml.models import save
from components.ml.phases import run_phases
from components.ml.scoring import load_classifier
from components.ml.students import build_student
from components.ml.trainable import merged
from components.params import Phase, Runtime, Student


def run(
    *,
    train: Path,
    validation: Path,
    teacher: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    student: Student,
    order: list[str],
    phases: dict[str, Phase],
    output: Path,
) -> None:
    """Write ``model/`` (a transformers folder) and ``history.jsonl``.

    The student starts from the same layers of the teacher and goes through the phases of ``distill``,
    each with the objective ``labels``; the pool has no labels, so it takes no part.
    """
    use_device(runtime.device, runtime.threads)
    set_seed(seed)
    teacher_model, tokenizer = load_classifier(teacher)
    model = build_student(teacher_model, student.layers, student.take)
    trained = run_phases(
        model,
        tokenizer,
        [(name, phases[name].model_copy(update={"objective": "labels"})) for name in order],
        splits=[(train, None)],
        validation=validation,
        history=output / "history.jsonl",
        seed=seed,
        runtime=runtime,
        max_length=max_length,
    )
    save(merged(trained), tokenizer, output / "model")
