"""Any model that is compared: a transformers folder, with or without prompts, or one with an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from components.ml.models.onnx_classifier import WEIGHTS, OnnxClassifier, load_onnx
from components.ml.models.scoring import load_classifier

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(
    folder: Path, device: torch.device
) -> tuple[PreTrainedModel | PeftModel | OnnxClassifier, PreTrainedTokenizerBase]:
    """The model of a folder and its tokenizer; one in an ONNX file runs on the CPU, whatever the device."""
    return load_onnx(folder) if (folder / WEIGHTS).is_file() else load_classifier(folder, device)


def parameters(model: PreTrainedModel | PeftModel | OnnxClassifier) -> int:
    """How many parameters compute the logits; peft also holds the ones that a trained head took the place of."""
    if isinstance(model, OnnxClassifier):
        return model.parameters
    return sum(weight.numel() for name, weight in model.named_parameters() if ".original_module." not in name)


def megabytes(folder: Path) -> float:
    """The size of a model folder's weights, in millions of bytes."""
    weights = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".onnx")]
    return sum(path.stat().st_size for path in weights) / 1e6
