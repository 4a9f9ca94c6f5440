"""A model that lies in MLflow, loaded back and asked: the labels' names and each row's logits."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import UserError
from components.ml.rows.inputs import Input
from components.ml.tasks import serving
from components.ml.tasks.row_task import RowTask
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ROWS_AT_ONCE = 1024
Predict = Callable[[Sequence[Input]], tuple[list[str], np.ndarray | Sequence[np.ndarray]]]
"""From what a model reads to the labels' names and the rows' logits: one array of shape (rows, labels), or one of shape
(positions, labels) for each row."""


@contextlib.contextmanager
def downloaded(client: MlflowClient, location: str) -> Iterator[str]:
    """A stored model's folder: where it lies, if that is on this machine, else a copy for as long as it is needed."""
    import mlflow.artifacts

    with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder:
        local = location.startswith(("file:", "/"))
        yield mlflow.artifacts.download_artifacts(
            artifact_uri=location, dst_path=None if local else folder, tracking_uri=client.tracking_uri
        )


class Predictor:
    """The model in a downloaded folder; whatever goes wrong in it is said of ``name``.

    ``task`` is the name of what it does; ``paired``: it reads two texts of a row.

    Raises:
        UserError: it can't be loaded, or, when it is called, gives no logits (``model``).
    """

    def __init__(self, path: str, name: str) -> None:
        import mlflow.pyfunc

        self.name, self._path = name, Path(path)
        with _working(name):
            self._model = mlflow.pyfunc.load_model(path)
            settings = _settings(self._model)
            self.task = str(settings.get("task", DEFAULT))
            self.kind: Task = TASKS[self.task]
        self.paired = bool(settings.get("paired"))

    def __call__(self, inputs: Sequence[Input]) -> tuple[list[str], np.ndarray]:
        """The labels' names and logits of shape (rows, labels), where a row as a whole is judged.

        Raises:
            UserError: rows have logits in several positions, or as of `rows` (``model``).
        """
        labels, found = self.rows(inputs)
        if not isinstance(self.kind, RowTask):
            raise UserError(
                f"The model of {self.name} gives logits of several positions of a row ({self.task}).",
                "Name a version of a model that judges a row as a whole.",
                "model",
            )
        return labels, np.concatenate([np.zeros((0, len(labels)), dtype=np.float32), *found])

    def rows(self, inputs: Sequence[Input]) -> tuple[list[str], list[np.ndarray]]:
        """The labels' names, and each row's logits of shape (positions, labels).

        Raises:
            UserError: it reads two texts of a row and got one, or the other way round (``model``).
        """
        if inputs and isinstance(inputs[0], tuple) != self.paired:
            reads, got = ("pairs of texts", "single texts") if self.paired else ("single texts", "pairs of texts")
            raise UserError(f"The model of {self.name} reads {reads}; got {got}.", "Name another version.", "model")
        with _working(self.name):
            return logits_of(self._model, inputs)

    @cached_property
    def tokenizer(self) -> Any:
        """What predictions are decoded with, where the task needs it."""
        from mlflow.models import Model
        from transformers import AutoTokenizer

        with _working(self.name):
            artifacts = Model.load(str(self._path)).flavors["python_function"]["artifacts"]
            folder = self._path / artifacts["model"]["path"]
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _settings(model: Any) -> Mapping[str, Any]:
    """What a loaded model was saved with."""
    return dict(model.model_config or {})


def logits_of(model: Any, inputs: Sequence[Input]) -> tuple[list[str], list[np.ndarray]]:
    """The labels' names, and each row's logits of shape (positions, labels), of a loaded model."""
    settings = _settings(model)
    task = TASKS[settings.get("task", DEFAULT)]
    labels = [str(label) for label in settings.get("labels", [])]
    found: list[np.ndarray] = []
    for first in range(0, len(inputs), _ROWS_AT_ONCE) if inputs else [0]:
        given = model_input(inputs[first : first + _ROWS_AT_ONCE], task)
        table = model.predict(given, params={"return": "logits"})
        if isinstance(task, RowTask):
            labels = [str(label) for label in table.columns]
            found += [*table.to_numpy()[:, None]]
        else:
            found += [np.array(one, dtype=np.float32).reshape(-1, len(labels)) for one in table["logits"]]
    return labels, found


def model_input(inputs: Sequence[Input], task: Task) -> Any:
    """Texts, words or pairs in a form that the model's code takes."""
    import pandas as pd

    if not inputs or not isinstance(inputs[0], tuple):
        return list(inputs)
    return pd.DataFrame(list(inputs), columns=serving.usual_form(task, paired=True))


@contextlib.contextmanager
def _working(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a stored model's code may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(
            f"The model of {name} no longer works with the installed libraries: {reason}",
            "Install the versions of its requirements.txt, or name another version.",
            "model",
        ) from error
