"""A text classifier for mlflow.pyfunc: models-from-code, copied beside the weights; needs no code of ours.

It needs transformers for the tokenizer, and onnxruntime where the model folder has a ``model.onnx``; else torch, and
peft where it has an ``adapter/``.

Input: a list or array of texts, or a table with a column ``text``; anything else is refused, over HTTP with code 400.
Output: ``label`` and ``score``, the label's probability; with ``params={"return": "probabilities"}`` or ``"logits"``
one column for each label.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

_BATCH = 32
_UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}  # which transformers doesn't write
_CHARACTERS = 256
"""What stands behind this many characters for each token is cut unread: megabytes would take seconds to tokenise."""
_Forward = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""From the tokenizer's arrays of shape (texts, tokens) to float32 logits of shape (texts, labels)."""
_RETURNS = ("label", "probabilities", "logits")


class TextClassifier(PythonModel):
    """A model folder behind MLflow's interface; loads offline, from safetensors or ONNX."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and tokenizer from the model's own files."""
        from transformers import AutoTokenizer

        folder = Path(context.artifacts["model"])
        self.max_length = int((context.model_config or {})["max_length"])
        offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label", _UNNAMED)
        self.labels = [names[str(index)] for index in range(len(names))]
        self.forward = _of_onnx(folder) if (folder / "model.onnx").is_file() else _of_torch(folder)

    # MLflow reads the input's type from here, and with this one hands the data over as they came.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Label and score of each text, or one column for each label."""
        wanted = (params or {}).get("return", "label")
        if wanted not in _RETURNS:
            raise _refused(f"params: expected 'return' to be one of {', '.join(_RETURNS)}; got {wanted!r:.100}.")
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
        if self.tokenizer.truncation_side == "right":
            texts = [text[: _CHARACTERS * self.max_length] for text in texts]
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
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    adapter = folder / "adapter"
    if adapter.is_dir():
        from peft import PeftModel

        if not (adapter / "adapter_model.safetensors").is_file():  # peft would take a pickle instead
            raise FileNotFoundError(f"{adapter} holds no adapter_model.safetensors, and only safetensors are read.")

        model = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu")
    model.eval()

    def forward(features: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(values) for name, values in features.items()}).logits
        return np.asarray(logits.float().numpy())

    return forward


def _texts(data: Any) -> list[str]:
    """The texts in any of the accepted forms.

    Raises:
        MlflowException: they are in none of these, or one of them is no text (INVALID_PARAMETER_VALUE).
    """
    if isinstance(data, pd.DataFrame):
        data = _column(data)
    if isinstance(data, dict):
        if "text" not in data:
            raise _refused(f"expected 'text'; got {_listed(data)}.")
        data = data["text"]
    if np.ndim(data) == 0 and not isinstance(data, list | tuple):
        data = [data.item() if isinstance(data, np.ndarray) else data]
    return [_text(index, value) for index, value in enumerate(data)]


def _column(table: pd.DataFrame) -> Sequence[Any]:
    """The column ``text``, or the only one if it has no name of its own."""
    if "text" in table.columns and list(table.columns).count("text") == 1:
        return list(table["text"])
    if len(table.columns) == 1 and table.columns[0] == 0:
        return list(table.iloc[:, 0])
    if table.empty and not len(table.columns):
        return []
    raise _refused(f"expected one column 'text'; got the columns {_listed(table.columns)}.")


def _text(index: int, value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("text")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # JSON can hold half a character
    value = value.item() if isinstance(value, np.generic) else value
    found = f"{value!r:.100} ({type(value).__name__})"
    raise _refused(f"expected texts; number {index}, counted from 0, is {found}.")


def _listed(names: Any) -> str:
    shown = [f"'{name}'" for name in list(names)[:20]]
    return ", ".join(shown) or "none"


def _refused(message: str) -> MlflowException:
    refusal: MlflowException = MlflowException.invalid_parameter_value(message[:1000])
    return refusal


set_model(TextClassifier())
