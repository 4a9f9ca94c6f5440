"""Dropout of a phase: another probability than the model's own, for as long as the phase trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def dropout(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Give every dropout of ``model`` this probability within the block; None keeps the model's own.

    Adapters that are put into the model within the block keep theirs.
    """
    own = [] if probability is None else list(_settings(model))
    for module, name, _ in own:
        setattr(module, name, probability)
    try:
        yield
    finally:
        for module, name, value in own:
            setattr(module, name, value)


def _settings(model: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    """Where a probability stands: in a layer of PyTorch, or as a number that an attention hands to its kernel."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            layer = name == "p" and isinstance(module, nn.Dropout)
            if isinstance(value, float) and (layer or "dropout" in name):
                yield module, name, value
