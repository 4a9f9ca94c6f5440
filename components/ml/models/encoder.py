"""Where the layers of an encoder are, whatever its architecture calls them."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from components.errors import UserError


def encoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of the model's encoder layers, found by its length.

    Raises:
        UserError: the architecture has no list of ``config.num_hidden_layers`` layers.
    """
    count = model.config.num_hidden_layers
    for parent, module in model.named_modules():
        lists = [
            (f"{parent}.{name}" if parent else name, child)
            for name, child in module.named_children()
            if isinstance(child, nn.ModuleList) and len(child) == count
        ]
        if len(lists) == 1:
            return lists[0]
        if lists:  # XLM: a list of the layers' attentions, another of their norms ...
            break
    raise UserError(
        f"{type(model).__name__} has no list of {count} encoder layers to choose from.",
        "Use an encoder such as BERT, RoBERTa or DistilBERT as the base model.",
        "parameters",
    )
