"""Which model of an architecture serves a task, and which task a model serves: config.json tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from components.errors import UserError
from components.ml.models.entity_markers import EntityMarkerModels
from components.ml.models.folders import loading
from components.ml.tasks.configured import TASK, configured_task
from components.ml.tasks.relation_classification import HEAD
from components.ml.tasks.table import DEFAULT
from components.ml.tasks.task import Task


def task_of(config: Any) -> Task:
    """The task of a model, or of its configuration, by what config.json says or else by its architecture."""
    found = getattr(config, "config", config)
    said: Mapping[str, Any] = found if isinstance(found, dict) else found.to_dict()
    return configured_task(said, _class_names(config))


def _class_names(model: Any) -> list[str]:
    """The classes of a model, and of the one that peft has wrapped."""
    return [type(model).__name__] if isinstance(model, torch.nn.Module) else []


def configure(config: PreTrainedConfig, task: Task, labels: Sequence[str]) -> PreTrainedConfig:
    """Let a configuration say which task and labels a model is for; it is changed and given back."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = task.problem_type  # type: ignore[assignment]
    if task.name == DEFAULT:
        vars(config).pop(TASK, None)
    else:
        setattr(config, TASK, task.name)
    return config


def auto_model(task: Task) -> Any:
    """What has ``from_pretrained`` and ``from_config`` for models of a task."""
    return EntityMarkerModels if task.head == HEAD else getattr(transformers, task.head)


def refuse_architecture(config: PreTrainedConfig, task: Task, key: str) -> None:
    """Refuse an architecture that has no head for a task.

    Raises:
        UserError: it names both.
    """
    if loading()["trust_remote_code"] and getattr(config, "auto_map", None):
        return
    if type(config) not in auto_model(task)._model_mapping or config.is_encoder_decoder:
        raise UserError(
            f"The architecture {config.model_type} ({key}) has no head for {task.name} over an encoder.",
            "Use a base model of another architecture, such as BERT, RoBERTa, DistilBERT, DeBERTa-v2 or ModernBERT.",
            "parameters",
        )


def new_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of this configuration for its task, in float32; all weights are drawn under torch's global seed."""
    model: PreTrainedModel = auto_model(task_of(config)).from_config(
        config, dtype=torch.float32, trust_remote_code=loading()["trust_remote_code"]
    )
    return model
