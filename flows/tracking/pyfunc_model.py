"""A text classifier for mlflow.pyfunc: models-from-code, copied beside the weights; needs no code of ours.

It needs torch and transformers, and peft where the model folder has an ``adapter/``.

Input: a list or array of texts, or a table with a column ``text``.
Output: ``label`` and ``score``; with ``params={"return": "probabilities"}`` or ``"logits"`` one column for each label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

_BATCH = 32
_RETURNS = ("label", "probabilities", "logits")


class TextClassifier(PythonModel):
    """A transformers folder behind MLflow's interface; loads offline, from safetensors."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and tokenizer from the model's own files."""
        from transformers import AutoTokenizer

        folder = context.artifacts["model"]
        self.max_length = int((context.model_config or {})["max_length"])
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = _load(folder)
        names = self.model.config.id2label
        self.labels = [names[index] for index in range(self.model.config.num_labels)]

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
            return pd.DataFrame(logits.numpy(), columns=self.labels)
        probabilities = logits.softmax(-1)
        if wanted == "probabilities":
            return pd.DataFrame(probabilities.numpy(), columns=self.labels)
        scores, indices = probabilities.max(-1)
        return pd.DataFrame({"label": [self.labels[index] for index in indices.tolist()], "score": scores.tolist()})

    def _logits(self, texts: list[str]) -> Any:
        """float32 tensor of shape (texts, labels), in input order; batches hold texts of similar length."""
        import torch

        logits = torch.zeros(len(texts), len(self.labels))
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            features = self.tokenizer(
                [texts[index] for index in batch],
                truncation=True,
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits[batch] = self.model(**features).logits.float()
        return logits


def _load(folder: str) -> Any:
    """The model in float32 and evaluation mode, with its prompts where it has some."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    adapter = Path(folder) / "adapter"
    if adapter.is_dir():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu")
    return model.eval()


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
