"""More to compare with, none of it by default: the fine-tune without distillation first, and other seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.ml.models.folders import content_of
from components.params.data import CUT, Windows
from components.params.stages import Controls, Distill, Finetune, Runtime

if TYPE_CHECKING:  # importing PyTorch takes seconds, and mostly there is nothing to do
    from components.recipes import Teaching, Training


def run(
    *,
    train: Path,
    unlabelled: Path,
    validation: Path,
    tasks: Path,
    teacher_logits: Path,
    teacher: Path,
    folders: Path,
    student_without_distillation: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    models: dict[str, str],
    distill: Distill,
    finetune: Finetune,
    settings: Controls,
    output: Path,
    windows: Windows = CUT,
    checkpoints: Path | None = None,
    checkpoint_every: int = 0,
) -> None:
    """Write ``controls.json`` and what it tells of, every model in a folder like that of the stage it is a control of.

    ``direct/``: the fine-tune of the student that was not distilled. All else is as in ``finetune``, its phases with
    the objective ``distill`` too: one thing differs, so the difference is what distilling the student first is worth.
    ``seeds/SEED/``: ``student``, ``student_without_distillation``, ``lora`` and, beside a direct fine-tune,
    ``lora_without_distillation``, trained with that seed from the same teacher and its logits.

    Raises:
        UserError: a seed is the one that the main models have.
    """
    if seed in settings.seeds:
        raise UserError(
            f"controls.seeds: expected other seeds than {seed}, which the main models have (seed).",
            f"Take {seed} out of controls.seeds: the comparison counts the main models as one seed.",
            "parameters",
        )
    direct = None
    if settings.direct_finetune or settings.seeds:
        from components.ml.models.device import use_device
        from components.ml.rows.tokenised import Splits
        from components.recipes import Teaching, Training, fine_tune

        use_device(runtime.device, runtime.threads)
        splits = Splits(train, unlabelled, validation, tasks)
        training = Training(splits, seed, runtime, max_length, checkpoints, checkpoint_every, windows)
        teaching = Teaching(teacher, teacher_logits, models)
        if settings.direct_finetune:
            print("the fine-tune without distillation first", flush=True)
            student = student_without_distillation
            fine_tune(training.part("direct"), teaching, finetune, student, output / "direct")
            direct = content_of(output / "direct/model")
        for other in settings.seeds:
            again = dataclasses.replace(training.part(f"seed-{other}"), seed=other)
            _train_all(again, teaching, distill, finetune, settings.direct_finetune, output / "seeds" / str(other))
    told = {"seed": seed, "seeds": settings.seeds, "direct_finetune": settings.direct_finetune, "direct": direct}
    (output / "controls.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _train_all(
    training: Training, teaching: Teaching, distill: Distill, finetune: Finetune, direct: bool, folder: Path
) -> None:
    """The students and fine-tunes of one seed."""
    from components.recipes import fine_tune, train_student, without_distillation

    sequence = distill.sequence
    students: dict[str, Any] = {
        "student": (sequence, distill),
        "student_without_distillation": (without_distillation(sequence), None),
    }
    for name, (phases, distillation) in students.items():
        print(f"seed {training.seed}: {name}", flush=True)
        train_student(training.part(name), teaching, distill.student, phases, folder / name, distillation)
    tuned = {"lora": "student"} | ({"lora_without_distillation": "student_without_distillation"} if direct else {})
    for name, student in tuned.items():
        print(f"seed {training.seed}: {name}", flush=True)
        fine_tune(training.part(name), teaching, finetune, folder / student / "model", folder / name)
