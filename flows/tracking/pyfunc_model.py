"""A text classifier for mlflow.pyfunc: models-from-code, copied beside the weights; needs no code of ours.

It needs transformers for the tokenizer, and onnxruntime where the model folder has a ``model.onnx``; else torch, and
peft where it has an ``adapter/``.

Input: a list or array of texts, or a table with a column ``text``; where it classifies pairs, a list of pairs of texts,
or a table with the columns ``text`` and ``text_pair``. Anything else is refused, over HTTP with code 400.
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
        settings = context.model_config or {}
        self.max_length = int(settings["max_length"])
        self.columns = ["text", "text_pair"] if settings.get("paired") else ["text"]
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
        logits = self._logits([_texts(column) for column in _columns(model_input, self.columns)])
        if wanted == "logits":
            return pd.DataFrame(logits, columns=self.labels)
        probabilities = _softmax(logits)
        if wanted == "probabilities":
            return pd.DataFrame(probabilities, columns=self.labels)
        labels = [self.labels[index] for index in probabilities.argmax(axis=-1)]
        return pd.DataFrame({"label": labels, "score": probabilities.max(axis=-1, initial=0.0).tolist()})

    def _logits(self, columns: list[list[str]]) -> np.ndarray:
        """float32 array of shape (rows, labels), in input order; batches hold rows of similar length.

        Args:
            columns: the texts of each row or, where pairs are classified, the first and the second ones.
        """
        rows = len(columns[0])
        logits = np.zeros((rows, len(self.labels)), dtype=np.float32)
        if self.tokenizer.truncation_side == "right":
            columns = [[text[: _CHARACTERS * self.max_length] for text in texts] for texts in columns]
        order = sorted(range(rows), key=lambda index: sum(len(texts[index]) for texts in columns))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            features = self.tokenizer(
                *([texts[index] for index in batch] for texts in columns),
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


def _columns(data: Any, names: list[str]) -> list[Sequence[Any]]:
    """The values of each column in any of the accepted forms.

    Raises:
        MlflowException: they are in none of these, or the columns are of different lengths (INVALID_PARAMETER_VALUE).
    """
    if isinstance(data, pd.DataFrame):
        return _of_table(data, names)
    if isinstance(data, dict):
        if lacking := [name for name in names if name not in data]:
            raise _refused(f"expected {_listed(lacking)}; got {_listed(data)}.")
        columns: list[Sequence[Any]] = [_as_list(data[name]) for name in names]
        if len({len(column) for column in columns}) > 1:
            raise _refused(f"expected as many {names[0]} as {names[1]}; got {len(columns[0])} and {len(columns[1])}.")
        return columns
    rows = data if isinstance(data, list) else _as_list(data)
    if len(names) == 1:
        return [[row.get("text") if isinstance(row, dict) else row for row in rows]]
    pairs = [_pair(index, row, names) for index, row in enumerate(rows)]
    return [[first for first, _ in pairs], [second for _, second in pairs]]


def _as_list(data: Any) -> list[Any]:
    if np.ndim(data) == 0 and not isinstance(data, list | tuple):
        return [data.item() if isinstance(data, np.ndarray) else data]
    return list(data)


def _pair(index: int, row: Any, names: list[str]) -> tuple[Any, Any]:
    if isinstance(row, dict):
        return row.get(names[0]), row.get(names[1])
    if isinstance(row, list | tuple | np.ndarray) and len(row) == 2:
        return row[0], row[1]
    raise _refused(f"expected pairs of texts; number {index}, counted from 0, is {row!r:.100} ({type(row).__name__}).")


def _of_table(table: pd.DataFrame, names: list[str]) -> list[Sequence[Any]]:
    """The named columns, or where they have no names of their own, all of as many."""
    if all(list(table.columns).count(name) == 1 for name in names):
        return [list(table[name]) for name in names]
    if list(table.columns) == list(range(len(names))):
        return [list(table.iloc[:, place]) for place in range(len(names))]
    if table.empty and not len(table.columns):
        return [[] for _ in names]
    wanted = f"one column {_listed(names)}" if len(names) == 1 else f"the columns {_listed(names)}, each once"
    raise _refused(f"expected {wanted}; got the columns {_listed(table.columns)}.")


def _texts(values: Sequence[Any]) -> list[str]:
    return [_text(index, value) for index, value in enumerate(values)]


def _text(index: int, value: Any) -> str:
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
