"""Which parameters a phase trains, and with which share of its learning rate."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from components.errors import UserError
from components.ml.models.encoder import encoder_layers
from components.params.trainable import Gradual, LastLayers, LayerLrDecay, Pattern

Level = dict[str, nn.Parameter]


def levels(model: nn.Module, target: PreTrainedModel) -> list[Level]:
    """The parameters of ``model`` by name, from the top down.

    First the heads and what lies between them and the layers (a pooler, a last norm), then the encoder's layers
    from the last to the first, last the embeddings and whatever all layers share.

    Args:
        model: what trains: ``target`` itself, or other heads over its encoder.
        target: the classifier whose encoder is shared.
    """
    layers = _layers(target)
    places = {id(parameter): 1 + depth for depth, layer in enumerate(reversed(layers)) for parameter in _of(layer)}
    places |= {id(parameter): len(layers) + 1 for module in _below(target, layers) for parameter in _of(module)}
    below = {id(parameter) for parameter in _of(target.base_model)} - places.keys()
    above = {id(parameter) for module in _above(target, layers) for parameter in _of(module)}
    found: list[Level] = [{} for _ in range(len(layers) + 2)]
    for name, parameter in model.named_parameters():
        shared = len(layers) + 1 if id(parameter) in below - above else 0
        found[places.get(id(parameter), shared)][name] = parameter
    return found


def _layers(target: PreTrainedModel) -> nn.ModuleList:
    """The encoder's layers; none where the architecture shares or scatters them, as ALBERT and XLM do."""
    try:
        return encoder_layers(target)[1]
    except UserError:
        return nn.ModuleList()


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules outside the base model that hold parameters: the classifier head."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def choose(
    chosen: str | LastLayers | Pattern | Gradual | LayerLrDecay, by_level: list[Level], freeze_embeddings: bool
) -> None:
    """Let the named parameters train and freeze all others; gradual thawing starts with all that it will reach.

    Raises:
        UserError: there are fewer layers, or no parameter has such a name.
    """
    if len(by_level) == 2 and (freeze_embeddings or isinstance(chosen, LastLayers | Gradual | LayerLrDecay)):
        asked = "freeze_embeddings" if freeze_embeddings else next(iter(type(chosen).model_fields))  # type: ignore[union-attr]
        raise UserError(
            f"{asked}: the architecture has no list of layers to go by.",
            "Use `all`, `head`, a pattern or adapters.",
            "parameters",
        )
    wanted = _wanted(chosen, by_level)
    frozen = by_level[-1] if freeze_embeddings else {}
    for level in by_level:
        for name, parameter in level.items():
            parameter.requires_grad_(name in wanted and name not in frozen)


def learning_rates(chosen: object, by_level: list[Level]) -> dict[str, float]:
    """The share of the phase's learning rate that each parameter has, by name; empty where all have all of it."""
    if not isinstance(chosen, LayerLrDecay):
        return {}
    return {name: chosen.layer_lr_decay**depth for depth, level in enumerate(by_level) for name in level}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """How many parameters train, of how many."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _wanted(chosen: object, by_level: list[Level]) -> set[str]:
    layers = len(by_level) - 2
    if isinstance(chosen, Pattern):
        return _matching(chosen.pattern, [name for level in by_level for name in level])
    if isinstance(chosen, LastLayers) and chosen.last_layers > layers:
        raise UserError(
            f"trainable: last_layers: the model has {layers} layers, got {chosen.last_layers}.",
            f"Choose at most {layers}, or `trainable: all`.",
            "parameters",
        )
    depth = 1 if chosen == "head" else chosen.last_layers + 1 if isinstance(chosen, LastLayers) else len(by_level)
    return {name for level in by_level[:depth] for name in level}


def _matching(pattern: str, names: list[str]) -> set[str]:
    found = {name for name in names if re.search(pattern, name)}
    if not found:
        plain = re.sub(r"\\.|[\^$*+?{}\[\]|()]", "", pattern)
        near = difflib.get_close_matches(plain, [*names, *_parts(names)], n=3, cutoff=0.3) or names[-3:]
        raise UserError(
            f"trainable: pattern: no parameter's name matches '{pattern}'.",
            f"Names that are near: {', '.join(near)}.",
            "parameters",
        )
    return found


def _parts(names: list[str]) -> list[str]:
    """Words that stand in names, in order, each once."""
    return list(dict.fromkeys(part for name in names for part in name.split(".") if not part.isdigit()))


def _of(module: nn.Module) -> Iterator[nn.Parameter]:
    yield from module.parameters()


def _below(target: PreTrainedModel, layers: nn.ModuleList) -> list[nn.Module]:
    """The base model's parts before the one that holds the layers."""
    children = list(target.base_model.children())
    return children[: _holder(children, layers)]


def _above(target: PreTrainedModel, layers: nn.ModuleList) -> list[nn.Module]:
    """The base model's parts after the one that holds the layers: a pooler, a last norm."""
    children = list(target.base_model.children())
    return children[_holder(children, layers) + 1 :]


def _holder(children: list[nn.Module], layers: nn.ModuleList) -> int:
    held = (index for index, child in enumerate(children) if any(part is layers for part in child.modules()))
    return next(held, len(children))
