"""The teacher: the base model fine-tuned on all groups, or a tuned one taken as it is and checked."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import set_seed

from components.errors import UserError
from components.ml.adapters.peft_models import merged
from components.ml.models.device import use_device
from components.ml.models.folders import check_folder
from components.ml.models.scoring import label_names, load_plain, predict_rows, sound
from components.ml.models.storage import load_base, save
from components.ml.models.task_models import configure, task_of
from components.ml.rows.tokenised import Splits, first_inputs
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Reading, Task
from components.ml.training.phases import run_phases
from components.params.data import CUT, Windows
from components.params.stages import Runtime, Teacher


def run(
    *,
    train: Path,
    unlabelled: Path,
    validation: Path,
    tasks: Path,
    schema: Path,
    base_model: Path,
    seed: int,
    runtime: Runtime,
    max_length: int,
    settings: Teacher,
    output: Path,
    windows: Windows = CUT,
    checkpoints: Path | None = None,
    checkpoint_every: int = 0,
) -> None:
    """Write ``model/`` (a transformers folder), ``history.jsonl`` and ``phases.json``."""
    use_device(runtime.device, runtime.threads)
    known = json.loads(schema.read_text(encoding="utf-8"))
    labels, task = known["labels"], TASKS[known.get("task", DEFAULT)]
    history = output / "history.jsonl"
    if not settings.order:
        history.touch()
        (output / "phases.json").write_text("[]\n", encoding="utf-8")
        _take_as_it_is(base_model, task, labels, validation, windows.reading(max_length), output / "model")
        return
    set_seed(seed)  # the new head is drawn at random
    model, tokenizer = load_base(base_model, labels, task=task)
    trained = run_phases(
        model,
        tokenizer,
        settings.sequence,
        splits=Splits(train, unlabelled, validation, tasks),
        history=history,
        seed=seed,
        runtime=runtime,
        reading=windows.reading(max_length),
        base_folder=base_model,
        checkpoints=checkpoints,
        checkpoint_every=checkpoint_every,
    )
    save(merged(trained), tokenizer, output / "model")


def _take_as_it_is(
    folder: Path, task: Task, labels: list[str], validation: Path, reading: Reading, output: Path
) -> None:
    """Check that a given teacher is for this task, knows these labels and gives finite logits, then keep it."""
    check_folder(folder)
    model, tokenizer = load_plain(folder)
    if task_of(model).name != task.name:
        raise UserError(
            f"teacher.base: {folder} was tuned for {task_of(model).name}, the data is for {task.name}.",
            "Set data.task to the teacher's task, or name a phase in teacher.order to tune it.",
            "parameters",
        )
    found = label_names(model)
    if found != labels:
        raise UserError(
            f"teacher.base: {folder} was tuned for the labels {found}, the data has {labels}.",
            "List the labels in the teacher's order in data.labels, or name a phase in teacher.order to tune it.",
            "parameters",
        )
    inputs = first_inputs(validation)
    if not all(map(sound, predict_rows(model, tokenizer, inputs, reading=reading))):
        raise UserError(
            f"teacher.base: {folder} gives logits that are not finite.", "Its weights are damaged.", "parameters"
        )
    configure(model.config, task, labels)
    save(model, tokenizer, output)
