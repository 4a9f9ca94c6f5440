"""The frozen lower layers of a model: how many there are, what they return, and their dropout switched off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from components.errors import UserError
from components.ml.models.encoder import encoder_layers
from components.ml.training.dropout import probabilities

Model = PreTrainedModel | PeftModel


def encoder_of(model: Model) -> PreTrainedModel:
    """The encoder below the head, without peft's wrapping."""
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    encoder: PreTrainedModel = whole.base_model
    return encoder


def frozen_depth(model: Model) -> int:
    """How many of the lowest encoder layers compute the same throughout training; 0 if the embeddings train.

    Found by asking autograd: a layer is frozen if its output depends on no parameter that requires a gradient,
    wherever that stands (adapters, relative positions that all layers share, weights tied to the embeddings).
    """
    virtual = isinstance(model, PeftModel) and any(one.is_prompt_learning for one in model.peft_config.values())
    encoder = encoder_of(model)
    if virtual or encoder.config.is_encoder_decoder:
        return 0
    try:
        outputs = look(encoder).outputs
    except UserError:  # no list of layers
        return 0
    return next((index for index, output in enumerate(outputs) if first_of(output).requires_grad), len(outputs))


def width_of(model: Model, depth: int) -> int:
    """How many numbers the layer below ``depth`` puts out for each token."""
    return int(first_of(look(encoder_of(model)).outputs[depth - 1]).shape[-1])


@contextlib.contextmanager
def quiet(model: Model, depth: int) -> Iterator[str]:
    """No dropout in the embeddings and the lowest ``depth`` layers within the block; yields a sentence's part for it.

    So the frozen part computes the same in every pass, whether its activations are reused or not.
    """
    encoder = encoder_of(model)
    _, layers = encoder_layers(encoder)
    above = [*layers[depth:], *([encoder.pooler] if isinstance(getattr(encoder, "pooler", None), nn.Module) else [])]
    kept = {id(part) for module in above for part in module.modules()}
    own = [(part, name, value) for (_, name), part, value in probabilities(encoder) if depth and id(part) not in kept]
    for part, name, _ in own:
        setattr(part, name, 0.0)
    try:
        yield f"{depth} of {len(layers)} layers are frozen: dropout is off in them and in the embeddings"
    finally:
        for part, name, value in own:
            setattr(part, name, value)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards each module has its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass(frozen=True)
class Seen:
    """What one pass shows: each layer's output as the architecture returns it, and the module whose output is just
    what enters the first layer, if there is one."""

    outputs: list[Any]
    embeddings: nn.Module | None


def look(encoder: PreTrainedModel) -> Seen:
    """Send two tokens through the encoder, in evaluation mode, so that no random number is drawn."""
    _, layers = encoder_layers(encoder)
    below = getattr(encoder, "embeddings", None)
    outputs: list[Any] = []
    entering: list[Any] = []
    embedded: list[Any] = []
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(lambda _, __, output: outputs.append(output)).remove)
        enter = layers[0].register_forward_pre_hook(
            lambda _, args, kwargs: entering.append(args[0] if args else kwargs.get("hidden_states")), with_kwargs=True
        )
        stack.callback(enter.remove)
        if isinstance(below, nn.Module):
            stack.callback(below.register_forward_hook(lambda _, __, output: embedded.append(output)).remove)
        stack.enter_context(evaluating(encoder))
        stack.enter_context(torch.enable_grad())
        ids = torch.zeros((1, 2), dtype=torch.long, device=next(encoder.parameters()).device)
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    whole = bool(embedded) and embedded[0] is entering[0]
    return Seen(outputs, below if whole else None)


def first_of(output: Any) -> Tensor:
    """The hidden states that a layer returned, alone or first of a tuple."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
