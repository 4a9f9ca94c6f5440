"""Puts in what frozen layers compute, instead of computing it again, and records it in the first place."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from components.ml.models.encoder import encoder_layers
from components.ml.reuse.frozen import Model, encoder_of, evaluating, first_of, look
from components.ml.training.objectives import FROZEN_STATES

Forward = Callable[..., Any]


class Source:
    """Where the output of the frozen layers comes from.

    ``states``, of shape (rows, tokens, width), is put in instead of computing it; None computes it.
    ``positions`` counts the tokens, padding included, for which it was put in.
    """

    def __init__(self) -> None:
        self.states: Tensor | None = None
        self.positions = 0


@contextlib.contextmanager
def reusing(model: Model, depth: int) -> Iterator[Source]:
    """Within the block, ``model(**features)`` takes ``frozen_states`` too, and doesn't compute the frozen layers then.

    A call without them computes as usual. Names of weights stay, and so does everything else of the model.
    """
    encoder, source = encoder_of(model), Source()
    _, layers = encoder_layers(encoder)
    seen = look(encoder)
    frozen = [*layers[:depth], *([seen.embeddings] if seen.embeddings is not None else [])]
    weights = [weight for module in frozen for weight in module.parameters()]

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert not any(weight.requires_grad for weight in weights), "a layer thawed while its activations were reused"
        source.states = kwargs.pop(FROZEN_STATES, None)
        source.positions += 0 if source.states is None else source.states.shape[0] * source.states.shape[1]
        return args, kwargs

    def drop(*_: Any) -> None:
        source.states = None

    with contextlib.ExitStack() as stack:
        for layer, output in zip(layers[:depth], seen.outputs, strict=False):
            stack.enter_context(_replaced(layer, functools.partial(_given, source, output)))
        if seen.embeddings is not None:
            stack.enter_context(_replaced(seen.embeddings, functools.partial(_given, source, None)))
        for handle in (
            model.register_forward_pre_hook(take, with_kwargs=True),
            model.register_forward_hook(drop, always_call=True),
        ):
            stack.callback(handle.remove)
        yield source


@contextlib.contextmanager
def recording(model: Model, depth: int) -> Iterator[Callable[[Mapping[str, Tensor]], Tensor]]:
    """Yields a function from a batch's features to the output of the lowest ``depth`` layers, (rows, tokens, width).

    In evaluation mode and without gradients; the layers above aren't computed.
    """
    encoder = encoder_of(model)
    _, layers = encoder_layers(encoder)
    seen = look(encoder)
    found: list[Tensor] = []

    def record(features: Mapping[str, Tensor]) -> Tensor:
        found.clear()
        encoder(**features)
        return found.pop()

    with contextlib.ExitStack() as stack:
        for layer, output in zip(layers[depth:], seen.outputs[depth:], strict=True):
            stack.enter_context(_replaced(layer, functools.partial(_skipped, output)))
        handle = layers[depth - 1].register_forward_hook(lambda _, __, output: found.append(first_of(output)))
        stack.callback(handle.remove)
        stack.enter_context(evaluating(encoder))
        stack.enter_context(torch.no_grad())
        yield record


@contextlib.contextmanager
def _replaced(module: nn.Module, instead: Callable[[Forward], Forward]) -> Iterator[None]:
    """Another ``forward`` of this one module, made from its own, within the block."""
    own = vars(module).get("forward")  # accelerate may have put one there
    vars(module)["forward"] = instead(module.forward)
    try:
        yield
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own


def _given(source: Source, like: Any, forward: Forward) -> Forward:
    def given(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs) if source.states is None else _formed(source.states, like)

    return given


def _skipped(like: Any, _: Forward) -> Forward:
    def skipped(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _formed(hidden_states, like)

    return skipped


def _formed(states: Tensor, like: Any) -> Any:
    """``states`` as a layer of this architecture returns them: alone, or first of a tuple."""
    return (states, *(None for _ in like[1:])) if isinstance(like, tuple) else states
