"""A classifier in an ONNX file, run by onnxruntime; it stands in for a transformers model in scoring."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from components.ml.models.folders import refuse_code

WEIGHTS = "model.onnx"
PARAMETERS = "parameters"
"""The key under which an exported file says how many parameters compute the logits."""


@dataclass(frozen=True)
class Output:
    """What a forward pass gives: a float32 tensor of shape (texts, classes)."""

    logits: torch.Tensor


class OnnxClassifier:
    """``model.onnx`` of a folder, on the CPU, with as many threads as PyTorch uses; it must give ``logits``."""

    device = torch.device("cpu")

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.config = PreTrainedConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        self._session = onnxruntime.InferenceSession(str(folder / WEIGHTS), options, providers=["CPUExecutionProvider"])
        self._inputs = [taken.name for taken in self._session.get_inputs()]

    def __call__(self, **features: torch.Tensor) -> Output:
        """The logits of a padded batch; features that the model doesn't take are left out."""
        (logits,) = self._session.run(["logits"], {name: features[name].numpy() for name in self._inputs})
        return Output(torch.from_numpy(logits))

    @property
    def parameters(self) -> int:
        """How many parameters compute the logits."""
        return int(self._session.get_modelmeta().custom_metadata_map[PARAMETERS])


def load_onnx(folder: Path) -> tuple[OnnxClassifier, PreTrainedTokenizerBase]:
    """The model of a folder with a ``model.onnx``, and its tokenizer."""
    refuse_code(folder)
    return OnnxClassifier(folder), AutoTokenizer.from_pretrained(folder, local_files_only=True)
