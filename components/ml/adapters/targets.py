"""Which layers of a model adapters go into, where the settings name some and where they leave it open."""

from __future__ import annotations

import re
from collections.abc import Mapping

from peft.utils import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
)
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from components.errors import UserError

# Keys, values and the feed-forward output (Liu et al. 2022) of families that peft has no choice for.
_IA3_FAMILIES = (
    ("key", "value", "output.dense"),  # BERT's relatives
    ("key", "value", "ffn_output"),  # ALBERT
    ("k_lin", "v_lin", "ffn.lin2"),  # DistilBERT
    ("attn.k", "attn.v", "output.dense"),  # MPNet
    ("attn.Wqkv", "mlp.Wo"),  # ModernBERT: queries, keys and values in one
    ("k_proj", "v_proj", "down_proj"),  # Llama's relatives
)


def lora_targets(model: PreTrainedModel, wanted: list[str] | None) -> list[str]:
    """Endings of the names of the layers that low-rank adapters go into.

    Args:
        wanted: those of the settings; None takes peft's choice for the architecture, or, where it has none, all
            projections of the attention.

    Raises:
        UserError: no linear layer has such a name.
    """
    layers = linear_layers(model)
    if wanted is not None:
        return _checked("lora: targets", wanted, layers)
    chosen = _peft_choice(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, model, layers)
    return _announced("lora", chosen or _attention("lora", model, layers))


def ia3_targets(
    model: PreTrainedModel, wanted: list[str] | None, feedforward: list[str] | None
) -> tuple[list[str], list[str]]:
    """Endings of the names of the layers that IA3 scales, and which of them it scales the inputs of.

    Args:
        wanted: those of the settings; None takes peft's choice for the architecture, or keys, values and the
            feed-forward output as far as their names are known, or else all projections of the attention.
        feedforward: those of ``wanted`` that are feed-forward layers; None takes the known ones.

    Raises:
        UserError: no linear layer has such a name, or a feed-forward layer isn't among the targets.
    """
    layers = linear_layers(model)
    _checked("ia3: feedforward", feedforward or [], layers)
    if wanted is None:
        chosen, known = _ia3_choice(model, layers)
        if feedforward is not None:
            chosen, known = sorted({*chosen, *feedforward} - ({*known} - {*feedforward})), feedforward
        return _announced("ia3", chosen), sorted(known)
    outside = sorted(set(feedforward or []) - set(wanted))
    if outside:
        raise UserError(
            f"trainable: ia3: feedforward names {', '.join(outside)}, which targets lacks.",
            "Name the feed-forward layers in targets too.",
            "parameters",
        )
    known = _ia3_choice(model, layers)[1] if feedforward is None else feedforward
    return _checked("ia3: targets", wanted, layers), sorted(set(known) & set(wanted))


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear layers below the classifier head, by name."""
    base = {id(module) for module in model.base_model.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module) in base
    }


def matching(layers: dict[str, nn.Module], targets: list[str]) -> dict[str, nn.Module]:
    """The layers whose names end in one of ``targets``, at a dot, as peft compares them."""
    return {name: layer for name, layer in layers.items() if any(f".{name}".endswith(f".{end}") for end in targets)}


def _checked(key: str, targets: list[str], layers: dict[str, nn.Module]) -> list[str]:
    missing = sorted(target for target in set(targets) if not matching(layers, [target]))
    if missing:
        known = sorted({name.rsplit(".", 1)[-1] for name in layers})
        raise UserError(
            f"trainable: {key}: the model has no linear layer named {', '.join(missing)}.",
            f"It has: {', '.join(known)}.",
            "parameters",
        )
    return sorted(set(targets))


def _ia3_choice(model: PreTrainedModel, layers: dict[str, nn.Module]) -> tuple[list[str], list[str]]:
    """Targets of IA3 and which of them are feed-forward layers, where the settings leave it open."""
    chosen = _peft_choice(TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING, model, layers)
    if chosen:
        known = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(model.config.model_type, [])
        return chosen, sorted(set(known) & set(chosen))
    for family in _IA3_FAMILIES:
        if all(matching(layers, [name]) for name in family):
            return sorted(family), [family[-1]]
    return _attention("ia3", model, layers), []


def _peft_choice(choices: Mapping[str, object], model: PreTrainedModel, layers: dict[str, nn.Module]) -> list[str]:
    """What peft takes for the architecture, if the model has such layers; else nothing."""
    chosen = choices.get(model.config.model_type)
    if not isinstance(chosen, list) or not all(matching(layers, [name]) for name in chosen):
        return []
    return sorted(chosen)


def _attention(method: str, model: PreTrainedModel, layers: dict[str, nn.Module]) -> list[str]:
    """All projections of the attention, each named from the attention on, since its last word alone is often
    the name of other layers too.

    Raises:
        UserError: no linear layer belongs to an attention.
    """
    found = {place.group() for name in layers if (place := re.search(r"[^.]*att(ention|n)[^.]*\..+", name))}
    if not found:
        raise UserError(
            f"trainable: {method}: {type(model).__name__} has no linear layers that are known as its attention.",
            f"Name layers in targets; it has: {', '.join(sorted({name.rsplit('.', 1)[-1] for name in layers}))}.",
            "parameters",
        )
    return sorted(found)


def _announced(method: str, targets: list[str]) -> list[str]:
    print(f"{method}: targets: {', '.join(targets)}", flush=True)
    return targets
