"""What the layers of a model compute inside, kept while it runs: hidden states, attention, queries, keys and values."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from peft import PeftModel
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from components.ml.models.encoder import encoder_layers

_NAME = "stillhouse_recorded"
_TRIPLES = (
    ("query", "key", "value"),
    ("query_proj", "key_proj", "value_proj"),
    ("q", "k", "v"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
)
"""What attentions call their projections where they don't go through transformers' AttentionInterface."""


@dataclass
class Recording:
    """What was kept, by layer."""

    hidden: dict[int, Tensor] = field(default_factory=dict)
    """The layer's output, before any norm above the layers; shape (batch, length, width)."""
    attention: dict[int, Tensor] = field(default_factory=dict)
    """Probabilities before dropout; shape (batch, heads, length, length)."""
    vectors: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """``queries``, ``keys`` and ``values``, all heads side by side; shape (batch, length, width)."""

    def keep_vectors(self, layer: int, name: str, vectors: Tensor) -> None:
        """Keep the first of a name: some models project their relative positions with the same weights later."""
        self.vectors.setdefault(layer, {}).setdefault(name, vectors)


Listener = Callable[[Tensor, Tensor, Tensor, Tensor], None]
_LISTENERS: dict[nn.Module, Listener] = {}
"""The attentions that are being recorded, and who hears of it; empty outside of ``Recorder.recording``."""


class Recorder:
    """Records chosen layers of one model; nothing of the model stays changed.

    Most architectures hand their attention to transformers' AttentionInterface, where it is heard. In the others
    (DeBERTa-v2, MPNet ...) hooks hear the projections, and the probabilities on their way into dropout.
    What a model computes otherwise isn't recorded; whoever needs it looks whether it is there.
    """

    def __init__(
        self, model: PreTrainedModel | PeftModel, hidden: Collection[int] = (), attention: Collection[int] = ()
    ) -> None:
        self.model = cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)
        self.layers = encoder_layers(self.model)[1]
        self.hidden = sorted(set(hidden))
        self.attention = sorted(set(attention))

    @contextlib.contextmanager
    def recording(self) -> Iterator[Recording]:
        """Keep what the model computes within the block."""
        found = Recording()
        with contextlib.ExitStack() as stack:
            for index in self.hidden:
                stack.enter_context(_hooked(self.layers[index].register_forward_hook(_keeps_hidden(found, index))))
            if self.attention and self.model._can_set_attn_implementation():
                stack.enter_context(self._heard(found))
            elif self.attention:
                for index in self.attention:
                    self._hook_attention(stack, found, index)
            yield found

    @contextlib.contextmanager
    def _heard(self, found: Recording) -> Iterator[None]:
        """Attention goes through ``_recorded_attention`` within the block."""
        AttentionInterface.register(_NAME, _recorded_attention)
        AttentionMaskInterface.register(_NAME, eager_mask)
        usual = self.model.config._attn_implementation
        listeners = {
            module: _listener(found, index) for index in self.attention for module in self.layers[index].modules()
        }
        self.model.set_attn_implementation(_NAME)
        _LISTENERS.update(listeners)
        try:
            yield
        finally:
            for module in listeners:
                _LISTENERS.pop(module)
            self.model.set_attn_implementation(usual)

    def _hook_attention(self, stack: contextlib.ExitStack, found: Recording, index: int) -> None:
        attention, names = _find_attention(self.layers[index])
        if attention is None:
            return
        for name, kept in zip(names, ("queries", "keys", "values"), strict=True):
            hook = _keeps_vectors(found, index, kept)
            stack.enter_context(_hooked(attention.get_submodule(name).register_forward_hook(hook)))
        probabilities = getattr(attention, "dropout", None)
        if isinstance(probabilities, nn.Dropout):
            hook = _keeps_attention(found, index)
            stack.enter_context(_hooked(probabilities.register_forward_pre_hook(hook)))


def _recorded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **settings: Any,
) -> tuple[Tensor, Tensor]:
    """The architecture's own eager attention, which tells a listener of its inputs and its probabilities.

    Where there is dropout it is computed a second time, since only probabilities before it are comparable.
    """
    attend = _eager(module)
    listener = _LISTENERS.get(module)
    if listener is None:
        return attend(module, query, key, value, attention_mask, dropout=dropout, **settings)
    output, probabilities = attend(module, query, key, value, attention_mask, dropout=0.0, **settings)
    listener(query, key, value, probabilities)
    if dropout and module.training:
        return attend(module, query, key, value, attention_mask, dropout=dropout, **settings)
    return output, probabilities


def _eager(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """The function that stands beside the attention's class in every file of transformers that uses the interface."""
    for kind in type(module).__mro__:
        found = getattr(sys.modules[kind.__module__], "eager_attention_forward", None)
        if found is not None:
            return found  # type: ignore[no-any-return]
    raise LookupError(f"{type(module).__name__} has no eager attention")


def _find_attention(layer: nn.Module) -> tuple[nn.Module | None, tuple[str, ...]]:
    for module in layer.modules():
        children = dict(module.named_children())
        for names in _TRIPLES:
            if all(name in children for name in names):
                return module, names
    return None, ()


def _listener(found: Recording, layer: int) -> Listener:
    def keep(query: Tensor, key: Tensor, value: Tensor, probabilities: Tensor) -> None:
        found.attention.setdefault(layer, probabilities)
        for name, heads in (("queries", query), ("keys", key), ("values", value)):
            found.keep_vectors(layer, name, heads.transpose(1, 2).flatten(2))

    return keep


def _keeps_hidden(found: Recording, layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        found.hidden[layer] = output[0] if isinstance(output, tuple) else output

    return hook


def _keeps_vectors(found: Recording, layer: int, name: str) -> Callable[..., None]:
    return lambda module, inputs, output: found.keep_vectors(layer, name, output)


def _keeps_attention(found: Recording, layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.attention.setdefault(layer, inputs[0])

    return hook


@contextlib.contextmanager
def _hooked(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
