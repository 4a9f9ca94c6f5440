"""A text classifier for mlflow.pyfunc: models-from-code, copied beside the weights; needs no code of ours.

It needs transformers for the tokenizer, and onnxruntime where the model folder has a ``model.onnx``; else torch, and
peft where it has an ``adapter/``.

Input: a list or array of texts, or a table with a column ``text``.
Output: ``label`` and ``score``; with ``params={"return": "probabilities"}`` or ``"logits"`` one column for each label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

_BATCH = 32
_Forward = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""From the tokenizer's arrays of shape (texts, tokens) to float32 logits of shape (texts, labels)."""
_RETURNS = ("label", "probabilities", "logits")


class TextClassifier(PythonModel):
    """A model folder behind MLflow's interface; loads offline, from safetensors or ONNX."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and tokenizer from the model's own files."""
        from transformers import AutoConfig, AutoTokenizer

        folder = Path(context.artifacts["model"])
        self.max_length = int((context.model_config or {})["max_length"])
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        names = AutoConfig.from_pretrained(folder, local_files_only=True).id2label
        self.labels = [names[index] for index in range(len(names))]
        self.forward = _of_onnx(folder) if (folder / "model.onnx").is_file() else _of_torch(folder)

    # MLflow reads the input's type from here, and with this one hands the data over as they came.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Label and score of each text, or one column for each label."""
        wanted = (params or {}).get("return", "label")
        if wanted not in _RETURNS:
            raise ValueError(f"params: expected 'return' to be one of {', '.join(_RETURNS)}; got {wanted!r}.")
        logits = self._logits(_texts(model_input))
        if wanted == "logits":
            return pd.DataFrame(logits, columns=self.labels)
        probabilities = _softmax(logits)
        if wanted == "probabilities":
            return pd.DataFrame(probabilities, columns=self.labels)
        labels = [self.labels[index] for index in probabilities.argmax(axis=-1)]
        return pd.DataFrame({"label": labels, "score": probabilities.max(axis=-1, initial=0.0).tolist()})

    def _logits(self, texts: list[str]) -> np.ndarray:
        """float32 array of shape (texts, labels), in input order; batches hold texts of similar length."""
        logits = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            features = self.tokenizer(
                [texts[index] for index in batch],
                truncation=True,
                max_length=self.max_length,
                padding=True,
                return_tensors="np",
            )
            logits[batch] = self.forward(features)
        return logits


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _of_onnx(folder: Path) -> _Forward:
    """The model of an ONNX file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    names = [taken.name for taken in session.get_inputs()]
    return lambda features: session.run(["logits"], {name: features[name] for name in names})[0]


def _of_torch(folder: Path) -> _Forward:
    """The model in float32 and evaluation mode, with its prompts where it has some."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    adapter = folder / "adapter"
    if adapter.is_dir():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu")
    model.eval()

    def forward(features: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(values) for name, values in features.items()}).logits
        return np.asarray(logits.float().numpy())

    return forward


def _texts(data: Any) -> list[str]:
    """The texts in any of the accepted forms."""
    if isinstance(data, pd.DataFrame):
        if "text" not in data.columns and len(data.columns) != 1:
            raise ValueError(f"expected a column 'text'; got the columns {', '.join(map(str, data.columns))}.")
        data = data["text"] if "text" in data.columns else data.iloc[:, 0]
    if isinstance(data, dict):
        data = data["text"]
    values = [data] if isinstance(data, str) else list(data)
    return [value["text"] if isinstance(value, dict) else str(value) for value in values]


set_model(TextClassifier())
