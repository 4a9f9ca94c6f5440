"""What trains in a phase: the model under the head that the objective needs, and which of its parameters move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from components.errors import UserError
from components.ml.adapters.peft_models import add_adapters
from components.ml.models.task_models import task_of
from components.ml.tasks.table import TASKS
from components.ml.teaching.features import FeatureTerms
from components.ml.teaching.lessons import Lessons
from components.ml.training.dropout import set_dropout
from components.ml.training.heads import is_causal, language_model, task_model
from components.ml.training.language import LanguageObjective
from components.ml.training.multitask import MultiTaskModel, MultiTaskObjective
from components.ml.training.objectives import Labels, Objective
from components.ml.training.phase_data import PhaseData
from components.ml.training.thawing import Thawing
from components.ml.training.trainable import choose, count_parameters, learning_rates, levels
from components.ml.training.trainer import Learner
from components.params.data import TARGET
from components.params.phases import Phase
from components.params.trainable import Adapters, Gradual


@dataclass(frozen=True)
class Prepared:
    """A phase that is ready to train.

    ``trained`` is the classifier that the phase leaves behind; ``learner`` holds it, or shares its encoder.
    ``learning_rates`` are shares of the phase's, by parameter.
    """

    trained: PreTrainedModel | PeftModel
    learner: Learner
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    callbacks: list[TrainerCallback] = field(default_factory=list)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many parameters train, of how many."""
        return count_parameters(self.learner.model)


def prepare(
    model: PreTrainedModel,
    phase: Phase,
    data: PhaseData,
    lessons: Lessons | None,
    base_folder: Path | None,
    base_name: str,
) -> Prepared:
    """Put the phase's head over the encoder of ``model`` and choose what trains.

    Raises:
        UserError: the architecture can't do what the phase asks for.
    """
    adapters = phase.trainable if isinstance(phase.trainable, Adapters) else None
    trained = model if adapters is None else add_adapters(model, adapters, base_name)
    trains, objective = _with_head(trained, model, phase, data, lessons, base_folder)
    learner = Learner(trains, objective)
    rates: Mapping[str, float] = {}
    callbacks: list[TrainerCallback] = []
    if adapters is None:
        by_level = levels(trains, model)
        choose(phase.trainable, by_level, phase.freeze_embeddings)  # type: ignore[arg-type]
        rates = learning_rates(phase.trainable, by_level)
        if isinstance(phase.trainable, Gradual):
            steps = phase.trainable.gradual.epochs_per_layer * data.steps_per_epoch
            callbacks = [Thawing(by_level, steps)]
    learner.remember_changing()
    if not learner.changing:
        raise UserError(
            f"trainable: nothing is left to train: {phase.trainable} with freeze_embeddings {phase.freeze_embeddings}.",
            "Let something else train, or leave the embeddings free.",
            "parameters",
        )
    return Prepared(trained, learner, rates, callbacks)


def _with_head(
    trained: PreTrainedModel | PeftModel,
    model: PreTrainedModel,
    phase: Phase,
    data: PhaseData,
    lessons: Lessons | None,
    base_folder: Path | None,
) -> tuple[nn.Module, Objective]:
    if phase.objective == "mlm":
        language = language_model(model, base_folder)
        _quieten(language, phase)
        return language, LanguageObjective(is_causal(language))
    objective = _labels(model, phase, data, lessons)
    if not data.tasks:
        return trained, objective
    return _several(model, phase, data, objective)


def _several(model: PreTrainedModel, phase: Phase, data: PhaseData, target: Labels) -> tuple[nn.Module, Objective]:
    """A head and an objective for each task, in the order in which the phase names them."""
    models: dict[str, PreTrainedModel] = {}
    objectives: dict[str, Objective] = {}
    for task in phase.tasks:
        if task == TARGET:
            models[task], objectives[task] = model, target
            continue
        kind = TASKS[data.tasks[task]["type"]]
        models[task] = task_model(model, kind, data.tasks[task]["labels"])
        _quieten(models[task], phase)
        objectives[task] = Labels(task=kind, label_smoothing=phase.label_smoothing)
    return MultiTaskModel(models), MultiTaskObjective(objectives)


def _quieten(other: PreTrainedModel, phase: Phase) -> None:
    """The phase's dropout for another head as well."""
    if phase.dropout is not None:
        set_dropout(other, phase.dropout)


def _labels(model: PreTrainedModel, phase: Phase, data: PhaseData, lessons: Lessons | None) -> Labels:
    if phase.objective == "labels" or lessons is None:
        return Labels(task=task_of(model), class_weights=data.class_weights, label_smoothing=phase.label_smoothing)
    settings = lessons.settings
    terms = None
    if lessons.teacher is not None:
        terms = FeatureTerms(lessons.teacher, model, settings.terms, lessons.layer_origin)
        print(terms.describe(), flush=True)
    return Labels(
        task=task_of(model),
        alpha=settings.alpha,
        beta=settings.beta,
        temperature=settings.temperature,
        class_weights=data.class_weights,
        label_smoothing=phase.label_smoothing,
        terms=terms,
    )
