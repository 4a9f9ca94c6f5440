"""Students built from some of a teacher's layers."""

from __future__ import annotations

import copy

from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from components.errors import UserError
from components.ml.layers import choose_layers


def encoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of the model's encoder layers, found by its length.

    Raises:
        UserError: the architecture has no list of ``config.num_hidden_layers`` layers.
    """
    count = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise UserError(
        f"{type(model).__name__} has no list of {count} encoder layers to choose from.",
        "Use an encoder such as BERT, RoBERTa or DistilBERT as the base model.",
        "parameters",
    )


def build_student(teacher: PreTrainedModel, layers: int | list[int], take: str = "lower") -> PreTrainedModel:
    """A copy of ``teacher`` that keeps only the chosen layers; embeddings and head are copied too."""
    name, modules = encoder_layers(teacher)
    chosen = choose_layers(len(modules), layers, take)
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(chosen)
    for per_layer in ("layer_types",):  # one entry a layer in some architectures
        if getattr(config, per_layer, None):
            setattr(config, per_layer, [getattr(config, per_layer)[index] for index in chosen])
    student: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    student.load_state_dict(_chosen_weights(teacher, name, chosen))
    return student


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
