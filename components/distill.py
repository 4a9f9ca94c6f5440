"""The student: built from the teacher or another model, trained on the teacher's logits and true labels."""

from __future__ import annotations

from pathlib import Path

from components.ml.models.device import use_device
from components.ml.rows.tokenised import Splits
from components.params.data import CUT, Windows
from components.params.stages import Distill, Runtime
from components.recipes import Teaching, Training, train_student


def run(
    *,
    train: Path,
    unlabelled: Path,
    validation: Path,
    tasks: Path,
    teacher_logits: Path,
    teacher: Path,
    folders: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    models: dict[str, str],
    settings: Distill,
    output: Path,
    windows: Windows = CUT,
    checkpoints: Path | None = None,
    checkpoint_every: int = 0,
) -> None:
    """Write ``model/`` (a transformers folder), ``history.jsonl`` and ``phases.json``.

    ``folders`` tells what the folders of ``models`` hold: an input so that the stage runs again when that changes.
    """
    use_device(runtime.device, runtime.threads)
    splits = Splits(train, unlabelled, validation, tasks)
    training = Training(splits, seed, runtime, max_length, checkpoints, checkpoint_every, windows)
    teaching = Teaching(teacher, teacher_logits, models)
    train_student(training, teaching, settings.student, settings.sequence, output, settings)
