"""Students: some of a teacher's layers, another pretrained model, or the teacher's architecture in another size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from components.errors import UserError
from components.ml.models.encoder import encoder_layers
from components.ml.models.folders import loading
from components.ml.models.layers import choose_layers
from components.ml.models.scoring import label_names, load_plain
from components.ml.models.storage import load_base
from components.ml.models.student_config import unfit, with_changes, with_layers
from components.ml.models.task_models import new_model, task_of
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task
from components.params.stages import Student

_PLACES = ("layer_idx", "layer_id", "layer_index", "layer_number", "idx", "training")
"""What modules call their place among the layers; it is no difference between them."""


def make_student(
    student: Student, teacher_folder: Path, models: Mapping[str, str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[int] | None]:
    """The student before it is trained, its tokenizer, and the teacher's layers it is made of (None for others).

    New weights are drawn under torch's global seed.

    Args:
        student: the section ``distill.student``.
        teacher_folder: the tuned teacher.
        models: the section ``data.models``: name -> folder.

    Raises:
        UserError: layers, settings or a folder that no student can be made of.
    """
    teacher, tokenizer = load_plain(teacher_folder)
    if student.layers is not None:
        chosen = choose_layers(len(encoder_layers(teacher)[1]), student.layers, student.take)
        return build_student(teacher, chosen), tokenizer, chosen
    if student.config is not None:
        return resized_student(teacher, student.config), tokenizer, None
    key = f"data.models.{student.model}"
    folder = Path(models[str(student.model)])
    return *pretrained_student(folder, label_names(teacher), key, task_of(teacher)), None


def build_student(teacher: PreTrainedModel, layers: int | list[int], take: str = "lower") -> PreTrainedModel:
    """A copy of ``teacher`` that keeps only the chosen layers; embeddings and head are copied too.

    Raises:
        UserError: the teacher lacks a layer, or a layer would work otherwise in its new place.
    """
    name, modules = encoder_layers(teacher)
    chosen = choose_layers(len(modules), layers, take)
    config = with_layers(teacher.config, chosen)
    student = new_model(config)
    for new, old in enumerate(chosen):
        found = next(_differences(student.get_submodule(f"{name}.{new}"), modules[old]), None)
        if found is not None:
            raise UserError(
                f"distill.student.layers: layer {old} of {type(teacher).__name__} works otherwise as the student's "
                f"layer {new}: {found}.",
                "Choose the lower layers (take: lower), or others that come to stand in a place like their own.",
                "parameters",
            )
    try:
        student.load_state_dict(_chosen_weights(teacher, name, chosen))
    except RuntimeError:
        raise UserError(
            f"distill.student.layers: {type(teacher).__name__} holds weights of its layers outside of {name}, "
            "so layers can't be left out.",
            "Use an encoder such as BERT, RoBERTa or DistilBERT as the base model, or another kind of student.",
            "parameters",
        ) from None
    return student


def resized_student(teacher: PreTrainedModel, changes: Mapping[str, Any]) -> PreTrainedModel:
    """A model of the teacher's architecture, tokens and labels in another size; all weights are drawn at random.

    Raises:
        UserError: settings that the architecture lacks, or that no model can be built with.
    """
    config = with_changes(teacher.config, changes)
    try:
        student = new_model(config)
        _try(student)
    except Exception as error:  # architectures check their sizes each in their own way, or not at all
        raise unfit(config, error) from error
    return student


def pretrained_student(
    folder: Path, labels: list[str], key: str = "data.models", task: Task = TASKS[DEFAULT]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Another pretrained model with its own tokenizer, and a head for ``labels``, in their order.

    The head of a classifier that was tuned for just these labels is kept; any other is drawn anew.

    Raises:
        UserError: the folder can't be loaded.
    """
    model, tokenizer = load_base(folder, labels, key, task)
    config = AutoConfig.from_pretrained(folder, **loading())
    own = [str(name) for _, name in sorted((config.id2label or {}).items())]
    if sorted(own) == sorted(labels):
        _reorder_head(model, [own.index(label) for label in labels])
    elif len(own) == len(labels):  # a head of the same shape was loaded, whose classes are others
        fresh = new_model(model.config)
        for name in _head(model):
            model.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
    return model, tokenizer


def _try(model: PreTrainedModel) -> None:
    """Let a few tokens pass through the encoder and the head; an encoder-decoder needs more than we know of it."""
    if model.config.is_encoder_decoder:
        return
    ids = torch.ones((1, 2), dtype=torch.long)
    with torch.no_grad():
        model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))  # so that no random number is drawn
    model.train()


def _head(model: PreTrainedModel) -> list[str]:
    """Names of the modules outside the encoder."""
    return [name for name, _ in model.named_children() if name != model.base_model_prefix]


def _reorder_head(model: PreTrainedModel, order: list[int]) -> None:
    """Let class ``i`` be what was class ``order[i]``."""
    if order == sorted(order):
        return
    linear = [module for name in _head(model) for module in model.get_submodule(name).modules()]
    last = [module for module in linear if isinstance(module, nn.Linear) and module.out_features == len(order)][-1]
    with torch.no_grad():
        last.weight.copy_(last.weight[order])
        if last.bias is not None:
            last.bias.copy_(last.bias[order])


def _differences(one: nn.Module, other: nn.Module) -> Iterator[str]:
    """How two layers of equal weights would still compute differently: by kind, settings or constants."""
    inside, beside = dict(one.named_modules()), dict(other.named_modules())
    for name in dict.fromkeys([*inside, *beside]):
        a, b = inside.get(name), beside.get(name)
        where = name or "the layer"
        if type(a) is not type(b) or a is None or b is None:
            yield f"{where} is {type(b).__name__} there and {type(a).__name__} here"
            continue
        new_settings, old_settings = _settings(a), _settings(b)
        for key in dict.fromkeys([*new_settings, *old_settings]):
            old, new = old_settings.get(key), new_settings.get(key)
            if old != new:
                yield f"{key} of {where} is {old} there and {new} here"
        constants = dict(b.named_buffers(recurse=False))
        for key, constant in a.named_buffers(recurse=False):
            if key not in constants or not torch.equal(constant, constants[key]):
                yield f"{key} of {where} differs"


def _settings(module: nn.Module) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(module).items()
        if key not in _PLACES and not key.startswith("_") and isinstance(value, bool | int | float | str | None)
    }


def _chosen_weights(teacher: PreTrainedModel, name: str, chosen: list[int]) -> dict[str, object]:
    """The teacher's weights under the names that they have in the student."""
    place = {old: new for new, old in enumerate(chosen)}
    weights: dict[str, object] = {}
    for key, value in teacher.state_dict().items():
        if not key.startswith(f"{name}."):
            weights[key] = value
            continue
        index, rest = key.removeprefix(f"{name}.").split(".", 1)
        if int(index) in place:
            weights[f"{name}.{place[int(index)]}.{rest}"] = value
    return weights
