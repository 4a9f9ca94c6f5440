"""Scoring texts with a sequence-classification model: batches of similar length, results in input order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from components.errors import UserError

if TYPE_CHECKING:  # importing peft takes seconds, and only training needs it
    from peft import PeftModel


def load_classifier(
    folder: Path, device: torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, in evaluation mode and float32, and the tokenizer of a transformers folder; no network, no pickle.

    Raises:
        UserError: some weights are missing, which transformers would draw at random; such as a head never trained.
    """
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    if report["missing_keys"]:
        raise UserError(
            f"{folder} is no tuned classifier: it lacks the weights {', '.join(sorted(report['missing_keys']))}.",
            "Give a model that was tuned for the task, or tune it: name a phase in teacher.order.",
            "parameters",
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    torch.nn.Module.to(model, device=device or torch.device("cpu"))
    return model.eval(), tokenizer


def label_names(model: PreTrainedModel | PeftModel) -> list[str]:
    """The names of the classes, in the order of the logits."""
    names = {int(index): str(name) for index, name in (model.config.id2label or {}).items()}
    return [names[index] for index in sorted(names)]


def length_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, so that a batch too large for memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


@torch.inference_mode()
def predict_logits(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    batch_size: int = 64,
) -> np.ndarray:
    """Logits of every text, in input order.

    Returns:
        float32 array of shape (texts, classes).
    """
    logits = np.zeros((len(texts), len(label_names(model))), dtype=np.float32)
    if not len(texts):
        return logits
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
    for batch in length_batches([len(ids) for ids in encoded["input_ids"]], batch_size):
        features = tokenizer.pad(
            {name: [values[index] for index in batch] for name, values in encoded.items()}, return_tensors="pt"
        )
        logits[batch] = model(**features.to(model.device)).logits.float().cpu().numpy()
    return logits
