"""The task-specific fine-tune of the student on one group; adapters are kept beside the merged model."""

from __future__ import annotations

from pathlib import Path

from components.ml.models.device import use_device
from components.ml.rows.tokenised import Splits
from components.params.data import CUT, Windows
from components.params.stages import Finetune, Runtime
from components.recipes import Teaching, Training, fine_tune


def run(
    *,
    train: Path,
    unlabelled: Path,
    validation: Path,
    tasks: Path,
    teacher_logits: Path,
    teacher: Path,
    student: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    settings: Finetune,
    output: Path,
    windows: Windows = CUT,
    checkpoints: Path | None = None,
    checkpoint_every: int = 0,
) -> None:
    """Write ``model/`` (a transformers folder, adapters merged), ``history.jsonl`` and ``phases.json``.

    If the last phase trains adapters, also ``adapter/``, and ``base/`` where phases before it changed the student;
    prompts, which can't be merged, lie in ``model/adapter/``. See ``components.recipes.fine_tune``. Phases with the
    objective ``distill`` mix true labels with the teacher's logits, on the task's own rows and the pool's.
    """
    use_device(runtime.device, runtime.threads)
    splits = Splits(train, unlabelled, validation, tasks)
    training = Training(splits, seed, runtime, max_length, checkpoints, checkpoint_every, windows)
    fine_tune(training, Teaching(teacher, teacher_logits, {}), settings, student, output)
