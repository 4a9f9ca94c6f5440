"""How a student and a fine-tune are trained and what they leave behind: what several stages have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from components.ml.adapters.peft_models import merged
from components.ml.adapters.saving import save_trained
from components.ml.models.scoring import ADAPTER, load_classifier, load_plain, predict_rows
from components.ml.models.storage import save
from components.ml.models.students import make_student
from components.ml.rows.tokenised import Splits, first_inputs
from components.ml.tasks.task import Reading
from components.ml.teaching.features import check_tokenizers
from components.ml.teaching.lessons import Lessons
from components.ml.training.phases import run_phases
from components.params.data import CUT, Windows
from components.params.phases import Distillation, Phase
from components.params.stages import Finetune, Runtime, Student
from components.params.trainable import Prompts

TOLERANCE = 1e-4
"""Greatest difference of a logit between two forms of a model: float32 rounding, not a lost weight."""

NamedPhases = Sequence[tuple[str, Phase]]


@dataclass(frozen=True)
class Training:
    """What every training is given: the rows, the seed, where and how to compute, how many tokens a text keeps.

    ``checkpoints`` is the folder for them; None keeps none.
    """

    splits: Splits
    seed: int
    runtime: Runtime
    max_length: int
    checkpoints: Path | None = None
    checkpoint_every: int = 0
    windows: Windows = CUT

    @property
    def reading(self) -> Reading:
        """How long rows are cut."""
        return self.windows.reading(self.max_length)

    def part(self, name: str) -> Training:
        """The same for one of several trainings, with checkpoints of its own."""
        return self if self.checkpoints is None else replace(self, checkpoints=self.checkpoints / name)


@dataclass(frozen=True)
class Teaching:
    """Where a student comes from and what it may learn: the teacher's folder, its logits, other pretrained models."""

    teacher: Path
    logits: Path | None
    models: Mapping[str, str]


def train_student(
    training: Training,
    teaching: Teaching,
    student: Student,
    sequence: NamedPhases,
    output: Path,
    distillation: Distillation | None = None,
) -> None:
    """Build a student, train it through ``sequence`` and write ``model/``, ``history.jsonl`` and ``phases.json``.

    Args:
        teaching: what the student is built from, and learns from in phases with the objective ``distill``.
        distillation: how it learns there; None where no phase does.
    """
    output.mkdir(parents=True, exist_ok=True)
    set_seed(training.seed)  # weights may be drawn at random
    model, tokenizer, origin = make_student(student, teaching.teacher, teaching.models)
    trained = run_phases(
        model,
        tokenizer,
        sequence,
        splits=training.splits,
        history=output / "history.jsonl",
        seed=training.seed,
        runtime=training.runtime,
        reading=training.reading,
        checkpoints=training.checkpoints,
        checkpoint_every=training.checkpoint_every,
        lessons=_lessons(teaching, distillation, sequence, tokenizer, origin),
        base_folder=Path(teaching.models[student.model]) if student.model else None,
    )
    save(merged(trained), tokenizer, output / "model")


def without_distillation(sequence: NamedPhases) -> list[tuple[str, Phase]]:
    """The same phases with true labels alone where there was a teacher; the pool has none, so it takes no part."""
    return [
        (name, phase.model_copy(update={"objective": "labels"}) if phase.objective == "distill" else phase)
        for name, phase in sequence
    ]


def fine_tune(training: Training, teaching: Teaching, settings: Finetune, student: Path, output: Path) -> None:
    """Fine-tune ``student`` and write ``model/``, ``history.jsonl`` and ``phases.json``.

    Adapters of the last phase are merged into ``model/`` and also kept in ``adapter/`` (peft); that belongs to
    ``student`` or, where phases before it changed that, to ``base/`` beside it. Prompts can't be merged: then
    ``model/`` is the model that they belong to, and holds them in ``model/adapter/``.
    """
    output.mkdir(parents=True, exist_ok=True)
    set_seed(training.seed)
    model, tokenizer = load_plain(student)
    base = _base(settings, student, output)
    trained = run_phases(
        model,
        tokenizer,
        settings.sequence,
        splits=training.splits,
        history=output / "history.jsonl",
        seed=training.seed,
        runtime=training.runtime,
        reading=training.reading,
        checkpoints=training.checkpoints,
        checkpoint_every=training.checkpoint_every,
        lessons=_lessons(teaching, settings, settings.sequence, tokenizer),
        base_name=_settled(base).as_posix(),
    )
    inputs = first_inputs(training.splits.validation)
    expected = predict_rows(trained, tokenizer, inputs, reading=training.reading)
    save_trained(trained, tokenizer, output, keep_base=base == output / "base")
    forms: dict[str, PreTrainedModel | PeftModel] = {"model": load_classifier(output / "model")[0]}
    if (output / ADAPTER).exists():
        forms["adapter"] = PeftModel.from_pretrained(load_plain(base)[0], str(output / ADAPTER)).eval()
    for form, written in forms.items():
        _check(form, expected, predict_rows(written, tokenizer, inputs, reading=training.reading))


def _base(settings: Finetune, student: Path, output: Path) -> Path:
    """The folder of the model that adapters of the last phase belong to."""
    if settings.order and isinstance(settings.phases[settings.order[-1]].trainable, Prompts):
        return output / "model"
    return student if len(settings.order) == 1 else output / "base"


def _check(form: str, expected: list[np.ndarray], found: list[np.ndarray]) -> None:
    """What was written must read back with the logits it was trained to: peft silently drops what it isn't told of."""
    # A position that was cut off has NaN in both.
    gaps = [np.nan_to_num(one) - np.nan_to_num(other) for one, other in zip(expected, found, strict=True)]
    difference = max((float(np.abs(gap).max(initial=0.0)) for gap in gaps), default=0.0)
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"The {form} reads back with logits that differ from the trained model's by up to {difference:.2g}, "
            f"expected {TOLERANCE:g}."
        )


def _lessons(
    teaching: Teaching,
    settings: Distillation | None,
    sequence: NamedPhases,
    tokenizer: PreTrainedTokenizerBase,
    origin: list[int] | None = None,
) -> Lessons | None:
    """What phases with the objective ``distill`` learn from; None if there are none, or no logits."""
    if settings is None or teaching.logits is None or all(phase.objective != "distill" for _, phase in sequence):
        return None
    terms, teacher = settings.terms, None
    if terms.hidden or terms.attention or terms.relation:
        teacher, its_tokenizer = load_plain(teaching.teacher)
        check_tokenizers(tokenizer, its_tokenizer)
    return Lessons(teaching.logits, settings, teacher, origin)


def _settled(path: Path) -> Path:
    """Where ``path`` will be when the stage's folder has got its name: until then it is called ``.partial``."""
    return Path(*(part.removesuffix(".partial") for part in path.parts))
