"""Models in MLflow: logged once for each distinct content, loaded back and compared before they count."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import UserError
from components.ml.rows.inputs import PAIR, TEXT, Input, input_columns, inputs_of
from flows.tracking.record import ModelRecord
from flows.tracking.runs import CONTENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

CODE = Path(__file__).with_name("pyfunc_model.py")
LENGTH = "stillhouse.max_length"  # what the model's code cuts texts to
BY_REFERENCE = "stillhouse.dvc.hash"
"""Of a model that isn't copied: DVC's hash of the stage's output that holds it."""
_LIBRARIES = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas")
_WITH_ADAPTER = (*_LIBRARIES, "peft")
_WITH_ONNX = ("mlflow", "onnxruntime", "transformers", "tokenizers", "numpy", "pandas")
_ROWS_TO_CHECK = 64
_EXAMPLE = ("a text", "一段文字")
Predict = Callable[[Sequence[Input]], tuple[list[str], np.ndarray]]
"""From texts, or pairs, to the labels' names and logits of shape (texts, labels)."""


def ensure(client: MlflowClient, experiment: str, run_id: str, model: ModelRecord, texts: Path, max_length: int) -> str:
    """The id of the logged model with this content, logged and checked now if it is new; linked to the run.

    Raises:
        UserError: the model does not load back with the logits it was evaluated with (``model``).
    """
    from mlflow.entities import LoggedModelOutput

    known = _find(client, experiment, model.content, max_length, copied=model.reference is None)
    model_id = known or _log(client, experiment, run_id, model, texts, max_length)
    outputs = client.get_run(run_id).outputs
    if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    return model_id


def _find(client: MlflowClient, experiment: str, content: str, max_length: int, *, copied: bool = True) -> str | None:
    """The finished model of this content and length; those that a killed run left unfinished are removed.

    One that was logged by reference counts only where it need not be ``copied``.
    """
    wanted = f"tags.`{CONTENT}` = '{content}' AND tags.`{LENGTH}` = '{max_length}'"
    found = client.search_logged_models([experiment], wanted)
    ready = [model.model_id for model in found if model.status == "READY"]
    for model in found:
        if model.model_id not in ready:
            client.delete_logged_model(model.model_id)
    files = [model.model_id for model in found if model.model_id in ready and BY_REFERENCE not in model.tags]
    return next(iter(files or ([] if copied else ready)), None)


def _log(client: MlflowClient, experiment: str, run_id: str, model: ModelRecord, texts: Path, max_length: int) -> str:
    """Log the model; it becomes READY, and so is found again, only after the check."""
    tags = {CONTENT: model.content, LENGTH: str(max_length)}
    tags |= {"stillhouse.stage": model.stage, "stillhouse.version": model.version}
    where = dict(model.reference or {})
    tags |= where
    logged = client.create_logged_model(experiment, model.name, run_id, tags, where, "text-classification")
    try:
        if model.reference is None:
            with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder:
                save(Path(folder) / "model", model.folder, max_length, input_columns(texts), logged, run_id)
                client.log_model_artifacts(logged.model_id, f"{folder}/model")
            check(client, logged, model, texts)
        else:
            check_here(model, texts, max_length)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell; _find cleans up the rest
            client.finalize_logged_model(logged.model_id, "FAILED")
            client.delete_logged_model(logged.model_id)
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def save(path: Path, folder: Path, max_length: int, columns: Sequence[str], logged: LoggedModel, run_id: str) -> None:
    """Write ``folder`` (a transformers folder, or one with an ONNX file) as an MLflow model: code, weights,
    requirements; no pickle. It reads texts or, with the columns ``text`` and ``text_pair``, pairs."""
    import mlflow.pyfunc
    from mlflow.models import Model

    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(CODE),
        artifacts={"model": str(folder.absolute())},
        model_config={"max_length": max_length, "paired": PAIR in columns},
        mlflow_model=Model(
            artifact_path=logged.artifact_location, model_uuid=logged.model_id, model_id=logged.model_id, run_id=run_id
        ),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in _libraries(folder)],
        signature=_signature(),
        input_example=_model_input([_EXAMPLE] if PAIR in columns else list(_EXAMPLE)),
    )


def _libraries(folder: Path) -> tuple[str, ...]:
    """What the model's code imports."""
    if (folder / "model.onnx").is_file():
        return _WITH_ONNX
    return _WITH_ADAPTER if (folder / "adapter").is_dir() else _LIBRARIES


def _signature() -> ModelSignature:
    """Outputs and parameters. No input schema: MLflow's would refuse a list or take a table's first column."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        outputs=Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")]),
        params=ParamSchema([ParamSpec("return", DataType.string, "label")]),
    )


def check(client: MlflowClient, logged: LoggedModel, model: ModelRecord, texts: Path) -> None:
    """Load the model back from the store and compare its logits with the evaluation's.

    Raises:
        UserError: they differ (``model``).
    """
    import mlflow.pyfunc

    rows, expected = sample(model.predictions, texts)
    with downloaded(client, logged.artifact_location) as path:
        found = mlflow.pyfunc.load_model(path).predict(_model_input(rows), params={"return": "logits"}).to_numpy()
    _compare(model, "loads back from MLflow", found, expected)


def check_here(model: ModelRecord, texts: Path, max_length: int) -> None:
    """Compare the logits of a model that is logged by reference, as it lies in the workspace, with the evaluation's.

    Raises:
        UserError: they differ (``model``).
    """
    import torch

    from components.ml.models.loading import load
    from components.ml.models.scoring import predict_logits

    rows, expected = sample(model.predictions, texts)
    found = predict_logits(*load(model.folder, torch.device("cpu")), rows, max_length=max_length)
    _compare(model, f"in {model.folder} comes", found, expected)


def _compare(model: ModelRecord, comes: str, found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=model.tolerance, atol=model.tolerance):
        gap = np.abs(found - expected).max() if found.shape == expected.shape else float("nan")
        raise UserError(
            f"The model '{model.name}' {comes} with other logits than it was evaluated with: "
            f"{expected.shape} expected, {found.shape} came, largest difference {gap:.2g}.",
            "Evaluate again under the installed library versions (`dvc repro -f -s evaluate`); nothing was registered.",
            kind="model",
        )


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
    """The model in a downloaded folder; whatever goes wrong in it is said of ``name``. ``paired``: it reads pairs.

    Raises:
        UserError: it can't be loaded, or, when it is called, gives no logits (``model``).
    """

    def __init__(self, path: str, name: str) -> None:
        import mlflow.pyfunc

        self.name = name
        with _working(name):
            self._model = mlflow.pyfunc.load_model(path)
        self.paired = bool((self._model.model_config or {}).get("paired"))

    def __call__(self, inputs: Sequence[Input]) -> tuple[list[str], np.ndarray]:
        """As `Predict` says.

        Raises:
            UserError: it reads pairs and got texts, or the other way round (``model``).
        """
        if inputs and isinstance(inputs[0], str) == self.paired:
            reads, got = ("pairs of texts", "single texts") if self.paired else ("single texts", "pairs of texts")
            raise UserError(f"The model of {self.name} reads {reads}; got {got}.", "Name another version.", "model")
        with _working(self.name):
            table = self._model.predict(_model_input(inputs), params={"return": "logits"})
            return [str(label) for label in table.columns], table.to_numpy()


def _model_input(inputs: Sequence[Input]) -> Any:
    """Texts, or pairs, in a form that the model's code takes."""
    import pandas as pd

    if not inputs or isinstance(inputs[0], str):
        return list(inputs)
    return pd.DataFrame(list(inputs), columns=[TEXT, PAIR])


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


def sample(predictions: Path, texts: Path, count: int = _ROWS_TO_CHECK) -> tuple[list[Input], np.ndarray]:
    """The first test rows' texts, or pairs, and the logits that evaluation stored for them, shape (rows, classes)."""
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    with pq.ParquetFile(predictions) as file:
        stored = next(file.iter_batches(count, columns=["row", "logits"]), None)
    numbers = stored["row"].to_pylist() if stored else []
    wanted = ["row", *input_columns(texts)]
    table = ds.dataset(texts, format="parquet").to_table(wanted, filter=ds.field("row").isin(numbers))
    by_row = dict(zip(table["row"].to_pylist(), inputs_of(table), strict=True))
    logits = np.array(stored["logits"].to_pylist() if stored else [], dtype=np.float32)
    return [by_row[number] for number in numbers], logits
