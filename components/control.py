"""The control: the same student trained the same way on true labels alone, to show what distillation gains."""

from __future__ import annotations

from pathlib import Path

from components.ml.models.device import use_device
from components.ml.rows.tokenised import Splits
from components.params.data import CUT, Windows
from components.params.phases import Phase
from components.params.stages import Runtime, Student
from components.recipes import Teaching, Training, train_student, without_distillation


def run(
    *,
    train: Path,
    unlabelled: Path,
    validation: Path,
    tasks: Path,
    teacher: Path,
    folders: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    models: dict[str, str],
    student: Student,
    order: list[str],
    phases: dict[str, Phase],
    output: Path,
    windows: Windows = CUT,
    checkpoints: Path | None = None,
    checkpoint_every: int = 0,
) -> None:
    """Write ``model/`` (a transformers folder), ``history.jsonl`` and ``phases.json``.

    The student is built as in ``distill`` and goes through its phases, those with the objective ``distill`` having
    the objective ``labels`` instead; there the pool, which has no labels, takes no part.
    ``folders`` tells what the folders of ``models`` hold: an input so that the stage runs again when that changes.
    """
    use_device(runtime.device, runtime.threads)
    splits = Splits(train, unlabelled, validation, tasks)
    training = Training(splits, seed, runtime, max_length, checkpoints, checkpoint_every, windows)
    sequence = without_distillation([(name, phases[name]) for name in order])
    train_student(training, Teaching(teacher, None, models), student, sequence, output)
