"""A model of any task for mlflow.pyfunc: models-from-code, copied beside the weights.

It needs transformers for the tokenizer, and onnxruntime where the model folder has a ``model.onnx``; else torch, and
peft where it has an ``adapter/``. No code of ours must be installed: a classifier of texts needs none, and what other
tasks need, or texts that are read in windows, stands beside the model as the artifact ``code``.

Input of text-classification, multi-label-classification and regression: a list or array of texts, or a table with a
column ``text``; where it reads pairs, a list of pairs of texts, or a table with the columns ``text`` and ``text_pair``.
Of token-classification: texts, a list of lists of words, or a table with a column ``tokens`` (words) or ``text``. Of
relation-classification: texts with both entities marked, or also the columns ``e1`` and ``e2`` with their spans. Of
question-answering: the columns ``question`` and ``context``. Anything else is refused, over HTTP with code 400.

Output: ``label`` and ``score``, the label's probability; ``labels``; ``score``; ``entities``, each with ``type``,
``text``, ``start``, ``end`` and ``score``; ``answer``, ``start``, ``end`` and ``score``. With
``params={"return": "probabilities"}`` or ``"logits"`` one column for each label. Where a row has logits in several
positions, they are a column ``logits`` of lists, position after position, and there are no probabilities.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
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


class TaskModel(PythonModel):
    """A model folder behind MLflow's interface; loads offline, from safetensors or ONNX."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and tokenizer from the model's own files."""
        from transformers import AutoTokenizer

        folder = Path(context.artifacts["model"])
        settings = context.model_config or {}
        self.served = _served(Path(context.artifacts["code"]), folder, settings) if "task" in settings else None
        if self.served is not None:
            self.forward = _of_onnx(folder) if (folder / "model.onnx").is_file() else _of_torch(folder, self.served)
            return
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
        """Label and score of each text, or what else the task answers, or one column for each label."""
        if self.served is not None:
            return self._answered(self.served, model_input, params or {})
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

    def _answered(self, served: Any, model_input: Any, params: dict[str, Any]) -> pd.DataFrame:
        """The same by what stands beside the model."""
        wanted = params.get("return", served.returns[0])
        if wanted not in served.returns:
            raise _refused(f"params: expected 'return' to be one of {', '.join(served.returns)}; got {wanted!r:.100}.")
        names = _form(model_input, served.forms)
        try:
            inputs = served.read(dict(zip(names, _columns(model_input, names), strict=True)))
        except served.refused as refusal:
            raise _refused(str(refusal)) from None
        return pd.DataFrame(served.table(inputs, served.logits(inputs, self.forward), wanted))

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


class _Packaged(MetaPathFinder, InspectLoader):
    """Imports a package from what its files hold now: they may be gone when a module is imported for the first time."""

    def __init__(self, package: Path) -> None:
        self.package, self.sources, self.packages = package.name, dict[str, str](), set[str]()
        for path in package.rglob("*.py"):
            parts = [package.name, *path.relative_to(package).with_suffix("").parts]
            if parts[-1] == "__init__":
                self.packages.add(".".join(parts[:-1]))
            self.sources[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in self.sources else None

    def is_package(self, fullname: str) -> bool:
        return fullname in self.packages

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname]


def _served(code: Path, folder: Path, settings: Mapping[str, Any]) -> Any:
    """The task, from the package ``code``; its name is a hash of its content, so that equal ones may be shared."""
    if not any(getattr(finder, "package", None) == code.name for finder in sys.meta_path):
        sys.meta_path.append(_Packaged(code))
    return importlib.import_module(f"{code.name}.ml.tasks.serving").Served.of(folder, settings)


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


def _of_torch(folder: Path, served: Any = None) -> _Forward:
    """The model in float32 and evaluation mode, with its prompts where it has some."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = (served.auto_model() if served else AutoModelForSequenceClassification).from_pretrained(
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
            output = model(**{name: torch.from_numpy(values) for name, values in features.items()})
            logits = served.task.logits(output) if served else output.logits
        return np.asarray(logits.float().numpy())

    return forward


def _form(data: Any, forms: list[list[str]]) -> list[str]:
    """The first columns that are all there, or else the usual ones, which are the last."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        data = data[0]
    named = list(data.columns) if isinstance(data, pd.DataFrame) else list(data) if isinstance(data, dict) else []
    return next((names for names in forms if set(names) <= set(named)), forms[-1])


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
        sizes = [len(column) for column in columns]
        if len(set(sizes)) > 1:
            raise _refused(f"expected as many {' as '.join(names)}; got {' and '.join(map(str, sizes))}.")
        return columns
    rows = data if isinstance(data, list) else _as_list(data)
    if len(names) == 1:
        return [[row.get(names[0]) if isinstance(row, dict) else row for row in rows]]
    several = [_several(index, row, names) for index, row in enumerate(rows)]
    return [[row[place] for row in several] for place in range(len(names))]


def _as_list(data: Any) -> list[Any]:
    if isinstance(data, list | tuple):
        return list(data)
    if np.ndim(data) == 0:
        return [data.item() if isinstance(data, np.ndarray) else data]
    return list(data)


def _several(index: int, row: Any, names: list[str]) -> list[Any]:
    if isinstance(row, dict):
        return [row.get(name) for name in names]
    if isinstance(row, list | tuple | np.ndarray) and len(row) == len(names):
        return list(row)
    what = "pairs of texts" if names == ["text", "text_pair"] else f"rows of {_listed(names)}"
    raise _refused(f"expected {what}; number {index}, counted from 0, is {row!r:.100} ({type(row).__name__}).")


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


set_model(TaskModel())
