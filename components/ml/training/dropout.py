"""Dropout of a phase: another probability than the model's own, for as long as the phase trains."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from torch import nn

# peft trains a copy of the head beside the original; both are the same place of the model.
_COPIES = re.compile(r"\.(original_module|modules_to_save\.\w+)(?=\.|$)")


@contextlib.contextmanager
def dropout(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Give every dropout of ``model`` this probability within the block; None keeps the model's own.

    Adapters that are put into the model within the block keep theirs.
    """
    if probability is None:
        yield
        return
    own = {place: value for place, _, value in probabilities(model)}
    _set(model, dict.fromkeys(own, probability))
    try:
        yield
    finally:
        _set(model, own)


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give every dropout of a model that is dropped afterwards this probability."""
    _set(model, {place: probability for place, _, _ in probabilities(model)})


def _set(model: nn.Module, wanted: Mapping[tuple[str, str], float]) -> None:
    for place, module, _ in list(probabilities(model)):
        if place in wanted:
            setattr(module, place[1], wanted[place])


def probabilities(model: nn.Module) -> Iterator[tuple[tuple[str, str], nn.Module, float]]:
    """Where probabilities stand, by the names of module and attribute: in a layer of PyTorch, or as a number
    that an attention hands to its kernel."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            layer = name == "p" and isinstance(module, nn.Dropout)
            if isinstance(value, float) and (layer or "dropout" in name):
                yield (_COPIES.sub("", path), name), module, value
