"""A trial of a model on two texts of a few tokens, which tells what training would trip over, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from components.ml.models.task_models import task_of


def idle_parameters(model: PeftModel) -> list[str]:
    """The parameters that should train and that no gradient reaches."""
    with _rehearsal(model), torch.enable_grad():
        _logits(model, [0]).sum().backward()
        return [
            name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
        ]


def padding_gap(model: PreTrainedModel | PeftModel) -> float:
    """How far a text's logits move when it is padded to the length of another one."""
    if model.config.pad_token_id is None:
        return 0.0  # nor can such a model read batches
    with _rehearsal(model), torch.no_grad():
        alone, padded = _logits(model, [0])[0], _logits(model, [0, 3])[0]
    # Where tokens have logits, those of the padding don't count.
    return float((alone - (padded if alone.dim() == 1 else padded[: len(alone)])).abs().max())


def _logits(model: PreTrainedModel | PeftModel, longer: list[int]) -> Tensor:
    """The logits of a batch of :func:`_texts`."""
    return task_of(model).logits(model(**_texts(model, longer)))


@contextmanager
def _rehearsal(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the block; modes, random state and gradients are afterwards as if nothing had happened."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter in model.parameters():
            parameter.grad = None


def _texts(model: PreTrainedModel | PeftModel, longer: list[int]) -> dict[str, Tensor]:
    """A batch of texts of two tokens and as many more as ``longer`` says of each, padded on the right."""
    config = model.config
    special = {getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "cls", "sep")}
    word = next(index for index in range(len(special) + 1) if index not in special)
    last = config.eos_token_id if isinstance(config.eos_token_id, int) else word  # some classify by it
    width = 2 + max(longer)
    rows = [[word] * (1 + more) + [last] + [config.pad_token_id or 0] * (width - 2 - more) for more in longer]
    masks = [[1] * (2 + more) + [0] * (width - 2 - more) for more in longer]
    batch = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}
    if getattr(config, "type_vocab_size", 0):
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    return {name: value.to(model.device) for name, value in batch.items()}
