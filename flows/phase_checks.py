"""What students, phases and terms ask of models and runtime, checked from params.yaml and config.json alone."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from components.errors import UserError
from components.ml.models.folders import count_layers
from components.ml.models.layers import choose_layers, map_layers, one_layer
from components.ml.tasks.table import TASKS
from components.params.data import TARGET
from components.params.phases import Distillation, Phase, Phases, Terms
from components.params.project import Params
from components.params.trainable import LastLayers, Prompts

_DEPTHS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer", "encoder_layers")


def raise_all(problems: Sequence[UserError]) -> None:
    """Raise what is wrong as one error, if anything is."""
    if len(problems) > 1:
        raise UserError("\n".join(map(str, problems)), kind=problems[0].kind)
    if problems:
        raise problems[0]


def check_phases(params: Params) -> None:
    """Refuse what the sections of phases ask for and can't get, whatever the models are.

    Raises:
        UserError: number formats that the device lacks, metrics that aren't measured, class weights for other classes
            than the data's, terms for prompts.
    """
    raise_all(
        [
            *_formats(params),
            *_metrics(params),
            *_class_weights(params),
            *_smoothing(params),
            *_prompts_under_terms(params),
        ]
    )


def check_layers(total: int | None, params: Params, root: Path = Path()) -> None:
    """Refuse layers that the base model, or the student, doesn't have.

    Args:
        total: the base model's number of encoder layers; None if it isn't known.
        params: what asks for layers.
        root: the folder that holds ``data/``.

    Raises:
        UserError: the key, how many layers were asked for and how many there are.
    """
    student = params.distill.student
    kept = student_layers(total, params, root)
    problems: list[UserError] = []
    if total is not None:
        problems += _too_many_layers("teacher", params.teacher, f"base model {params.teacher.base}", total)
        if student.layers is not None:
            problems += _told(lambda: choose_layers(total, student.layers or 1, student.take))
    if kept is not None:
        problems += _too_many_layers("distill", params.distill, "student", kept)
        problems += _too_many_layers("finetune", params.finetune, "student", kept)
    if kept is not None and total is not None:
        problems += _lacking_in_terms("distill", params.distill, kept, total)
        problems += _lacking_in_terms("finetune", params.finetune, kept, total)
    raise_all(problems)


def check_students_tokenizer(params: Params, root: Path = Path()) -> None:
    """Refuse terms for a student with another vocabulary than the teacher's: positions wouldn't correspond.

    Raises:
        UserError: names both folders.
    """
    name = params.distill.student.model
    used = [section for section, phases in _distilling(params) if phases.terms != Terms()]
    if name is None or not used:
        return
    folders = params.data.models[name], params.teacher.base
    mine, theirs = (_vocabulary(root / folder) for folder in folders)
    if mine is not None and theirs is not None and mine != theirs:
        raise UserError(
            f"{used[0]}.terms: the student {folders[0]} has another vocabulary than the teacher {folders[1]}, "
            "so a position of one corresponds to none of the other.",
            "Set hidden, attention and relation to null; such a student learns from the logits alone.",
            "parameters",
        )


def student_layers(total: int | None, params: Params, root: Path = Path()) -> int | None:
    """The student's number of layers; None if it isn't known."""
    student = params.distill.student
    if student.layers is not None:
        return len(student.layers) if isinstance(student.layers, list) else student.layers
    if student.config is not None:
        depths = [student.config[name] for name in _DEPTHS if isinstance(student.config.get(name), int)]
        return depths[0] if depths else total
    try:
        return count_layers(root / params.data.models[str(student.model)])
    except UserError:  # told by the check of the folder
        return None


def _told(attempt: Callable[[], object]) -> list[UserError]:
    try:
        attempt()
    except UserError as error:
        return [error]
    return []


def _running(params: Params) -> Iterator[tuple[str, Phase]]:
    """The phases that run, by their key."""
    for section, phases in params.all_phases().items():
        for name, phase in phases.sequence:
            yield f"{section}.phases.{name}", phase


def _distilling(params: Params) -> Iterator[tuple[str, Distillation]]:
    """The sections in which some phase learns from the teacher."""
    for section, phases in (("distill", params.distill), ("finetune", params.finetune)):
        if any(phase.objective == "distill" for _, phase in phases.sequence):
            yield section, phases


def _formats(params: Params) -> Iterator[UserError]:
    device = params.runtime.device
    asked = {"runtime.dtype": params.runtime.dtype} | {f"{key}.dtype": phase.dtype for key, phase in _running(params)}
    for key, dtype in asked.items():
        if dtype == "float16" and device != "cuda":
            yield UserError(
                f"{key}: float16 needs the device cuda, runtime.device is {device}.",
                "Choose bfloat16 or float32.",
                "parameters",
            )


def _metrics(params: Params) -> Iterator[UserError]:
    for key, phase in _running(params):
        if phase.early_stopping is None:
            continue
        known, metric = _measured(params, phase), phase.early_stopping.metric
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            yield UserError(
                f"{key}.early_stopping.metric: '{metric}' isn't measured in this phase.{guess}",
                f"Choose one of: {', '.join(known)}.",
                "parameters",
            )


def _measured(params: Params, phase: Phase) -> list[str]:
    """The metrics of a phase: those of its first task have no prefix, means are of what all its tasks measure."""
    if phase.objective == "mlm":
        return ["loss", "perplexity"]
    first, *others = [params.data.kind if name == TARGET else params.data.tasks[name].kind for name in phase.tasks]
    named = zip(phase.tasks[1:], others, strict=True)
    shared = [metric for metric in first.validated if all(metric in task.validated for task in others)]
    return [
        *first.validated,
        *(f"{name}/{metric}" for name, task in named for metric in task.validated),
        *(f"mean/{metric}" for metric in shared if others),
    ]


def _class_weights(params: Params) -> Iterator[UserError]:
    labels = params.data.labels
    for key, phase in _running(params):
        weights = phase.class_weights
        if weights is not None and not params.data.kind.takes_class_weights:
            known = ", ".join(name for name, task in TASKS.items() if task.takes_class_weights)
            yield UserError(
                f"{key}.class_weights: the loss of {params.data.task} has no weights of classes, got {weights}.",
                f"Set it to null; weights are for {known}.",
                "parameters",
            )
        elif labels is not None and isinstance(weights, dict) and set(weights) != set(labels):
            yield UserError(
                f"{key}.class_weights: expected a weight for each of data.labels ({', '.join(labels)}), "
                f"got {', '.join(weights) or 'none'}.",
                "Name every class once, or use `balanced`.",
                "parameters",
            )


def _smoothing(params: Params) -> Iterator[UserError]:
    for key, phase in _running(params):
        if phase.label_smoothing and not params.data.kind.takes_label_smoothing:
            yield UserError(
                f"{key}.label_smoothing: {params.data.task} has no labels to smooth, got {phase.label_smoothing:g}.",
                "Set it to 0.",
                "parameters",
            )


def _prompts_under_terms(params: Params) -> Iterator[UserError]:
    for section, phases in _distilling(params):
        for name, phase in phases.sequence:
            if phases.terms != Terms() and phase.objective == "distill" and isinstance(phase.trainable, Prompts):
                yield UserError(
                    f"{section}.phases.{name}: prompts are positions that the teacher doesn't have, so "
                    f"{section}.terms can't compare the two.",
                    f"Set {section}.terms to {{hidden: null, attention: null, relation: null}}, "
                    "or train other parameters than prompts.",
                    "parameters",
                )


def _too_many_layers(section: str, phases: Phases, model: str, layers: int) -> Iterator[UserError]:
    for name, phase in phases.sequence:
        if isinstance(phase.trainable, LastLayers) and phase.trainable.last_layers > layers:
            yield UserError(
                f"{section}.phases.{name}.trainable.last_layers: the {model} has {layers} layers, "
                f"got {phase.trainable.last_layers}.",
                f"Choose at most {layers}, or `trainable: all`.",
                "parameters",
            )


def _lacking_in_terms(section: str, phases: Distillation, student: int, teacher: int) -> list[UserError]:
    if all(phase.objective != "distill" for _, phase in phases.sequence):
        return []
    terms, key = phases.terms, f"{section}.terms"
    problems: list[UserError] = []
    if terms.hidden is not None:
        layers = terms.hidden.layers
        problems += _told(lambda: map_layers(layers, student, teacher, f"{key}.hidden.layers"))
    if terms.attention is not None:
        pairs = terms.attention.layers
        problems += _told(lambda: map_layers(pairs, student, teacher, f"{key}.attention.layers"))
    if (relation := terms.relation) is not None:
        problems += _told(
            lambda: one_layer(relation.student_layer, student, f"{key}.relation.student_layer", "student")
        )
        problems += _told(
            lambda: one_layer(relation.teacher_layer, teacher, f"{key}.relation.teacher_layer", "teacher")
        )
    return problems


def _vocabulary(folder: Path) -> object:
    """The vocabulary in a folder's tokenizer.json; None where it can't be told so."""
    try:
        return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
