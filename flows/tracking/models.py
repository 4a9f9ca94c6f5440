"""Models in MLflow: logged once for each distinct content, loaded back and compared before they count."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.component import PACKAGE, code_closure
from components.errors import UserError
from components.ml.rows.inputs import PAIR, Input, input_columns, inputs_of
from components.ml.tasks import serving
from components.ml.tasks.configured import configured_task
from components.ml.tasks.table import DEFAULT
from components.ml.tasks.task import Task
from components.params.data import CUT, Windows
from flows.tracking.predictor import downloaded, logits_of, model_input
from flows.tracking.record import ModelRecord
from flows.tracking.runs import CONTENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

CODE = Path(__file__).with_name("pyfunc_model.py")
SERVING = serving.__name__
"""Of the code that serves what ``CODE`` alone doesn't; what it imports of ours is copied beside the model."""
LENGTH = "stillhouse.max_length"  # what the model's code cuts texts to
WINDOWS = "stillhouse.windows"
"""Of a model that reads long rows in windows: their stride, and what puts them together."""
BY_REFERENCE = "stillhouse.dvc.hash"
"""Of a model that isn't copied: DVC's hash of the stage's output that holds it."""
_LIBRARIES = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas")
_WITH_ADAPTER = (*_LIBRARIES, "peft")
_WITH_ONNX = ("mlflow", "onnxruntime", "transformers", "tokenizers", "numpy", "pandas")
_ROWS_TO_CHECK = 64
_OURS = re.compile(rf"^(\s*(?:from|import) ){PACKAGE.name}\b", re.MULTILINE)


def ensure(
    client: MlflowClient,
    experiment: str,
    run_id: str,
    model: ModelRecord,
    texts: Path,
    max_length: int,
    windows: Windows = CUT,
) -> str:
    """The id of the logged model with this content, logged and checked now if it is new; linked to the run.

    Args:
        client: of the tracking server.
        experiment: its id.
        run_id: the run that the model belongs to.
        model: the model.
        texts: the folder of the test rows.
        max_length: tokens at which rows are cut, or windows end.
        windows: how rows are read that are longer.

    Raises:
        UserError: the model does not load back with the logits it was evaluated with (``model``).
    """
    from mlflow.entities import LoggedModelOutput

    known = _find(client, experiment, model.content, max_length, copied=model.reference is None, windows=windows)
    model_id = known or _log(client, experiment, run_id, model, texts, max_length, windows)
    outputs = client.get_run(run_id).outputs
    if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    return model_id


def _find(
    client: MlflowClient, experiment: str, content: str, max_length: int, *, copied: bool = True, windows: Windows = CUT
) -> str | None:
    """The finished model of this content, length and windows; those that a killed run left unfinished are removed.

    One that was logged by reference counts only where it need not be ``copied``.
    """
    wanted = f"tags.`{CONTENT}` = '{content}' AND tags.`{LENGTH}` = '{max_length}'"
    of_any = client.search_logged_models([experiment], wanted)
    found = [model for model in of_any if model.tags.get(WINDOWS) == _windows_tag(windows).get(WINDOWS)]
    ready = [model.model_id for model in found if model.status == "READY"]
    for model in found:
        if model.model_id not in ready:
            client.delete_logged_model(model.model_id)
    files = [model.model_id for model in found if model.model_id in ready and BY_REFERENCE not in model.tags]
    return next(iter(files or ([] if copied else ready)), None)


def _windows_tag(windows: Windows) -> dict[str, str]:
    return {} if windows.stride is None else {WINDOWS: f"{windows.stride} {windows.pooling}"}


def _log(
    client: MlflowClient,
    experiment: str,
    run_id: str,
    model: ModelRecord,
    texts: Path,
    max_length: int,
    windows: Windows,
) -> str:
    """Log the model; it becomes READY, and so is found again, only after the check."""
    task = task_of(model.folder)
    tags = {CONTENT: model.content, LENGTH: str(max_length), **_windows_tag(windows)}
    tags |= {"stillhouse.stage": model.stage, "stillhouse.version": model.version}
    where = dict(model.reference or {})
    tags |= where
    logged = client.create_logged_model(experiment, model.name, run_id, tags, where, pipeline(task))
    try:
        if model.reference is None:
            with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder:
                save(Path(folder) / "model", model.folder, max_length, input_columns(texts), logged, run_id, windows)
                client.log_model_artifacts(logged.model_id, f"{folder}/model")
            check(client, logged, model, texts)
        else:
            check_here(model, texts, max_length, windows)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell; _find cleans up the rest
            client.finalize_logged_model(logged.model_id, "FAILED")
            client.delete_logged_model(logged.model_id)
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def task_of(folder: Path) -> Task:
    """The task of a model folder, by its config.json."""
    return configured_task(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def pipeline(task: Task) -> str:
    """The pipeline of transformers that does what the task does."""
    named = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", task.head.removeprefix("AutoModelFor")).lower()
    return named if named in ("token-classification", "question-answering") else "text-classification"


def save(
    path: Path,
    folder: Path,
    max_length: int,
    columns: Sequence[str],
    logged: LoggedModel,
    run_id: str,
    windows: Windows = CUT,
) -> None:
    """Write ``folder`` (a transformers folder, or one with an ONNX file) as an MLflow model: code, weights,
    requirements; no pickle. Where it could read single texts as well as pairs, it reads pairs with the columns
    ``text`` and ``text_pair``."""
    import mlflow.pyfunc
    from mlflow.models import Model

    task, paired = task_of(folder), PAIR in columns
    settings: dict[str, Any] = {"max_length": max_length, "paired": paired}
    artifacts = {"model": str(folder.absolute())}
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as scratch:
        served = None
        if task.name != DEFAULT or windows.stride is not None:
            settings |= {"task": task.name, "stride": windows.stride, "pooling": windows.pooling}
            served = serving.Served.of(folder, settings)
            settings["labels"] = served.labels
            artifacts["code"] = str(package(Path(scratch)))
        mlflow.pyfunc.save_model(
            str(path),
            python_model=str(CODE),
            artifacts=artifacts,
            model_config=settings,
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=run_id,
            ),
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in _libraries(folder)],
            signature=_signature(served),
            input_example=model_input(serving.example(task, paired), task),
        )


def package(folder: Path) -> Path:
    """Copy the code that serves any task, all that it imports of ours too, as a package of its own into ``folder``.

    Its name follows from its content: it is no other's, and equal ones are one.
    """
    sources = {path.relative_to(PACKAGE): path.read_text(encoding="utf-8") for path in code_closure(SERVING)}
    told = json.dumps({place.as_posix(): text for place, text in sources.items()}, sort_keys=True)
    name = f"stillhouse_model_{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    for place, text in sources.items():
        target = folder / name / place
        for above in target.relative_to(folder).parents:
            (folder / above).mkdir(parents=True, exist_ok=True)
            if above.name:
                (folder / above / "__init__.py").touch()
        target.write_text(_OURS.sub(rf"\g<1>{name}", text), encoding="utf-8")
    return folder / name


def _libraries(folder: Path) -> tuple[str, ...]:
    """What the model's code imports."""
    if (folder / "model.onnx").is_file():
        return _WITH_ONNX
    return _WITH_ADAPTER if (folder / "adapter").is_dir() else _LIBRARIES


def _signature(served: serving.Served | None) -> ModelSignature:
    """Outputs and parameters. No input schema: MLflow's would refuse a list or take a table's first column."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    usual, answered = "label", ["label", "score"]
    if served is not None:
        usual = served.returns[0]
        answered = serving.answer_keys(served.task, served.labels, served.tokenizer, served.paired)
    return ModelSignature(
        outputs=Schema([ColSpec(_type(serving.ANSWERS.get(name, str)), name) for name in answered]),
        params=ParamSchema([ParamSpec("return", DataType.string, usual)]),
    )


def _type(told: Any) -> Any:
    """One of ``serving.ANSWERS`` as MLflow has it."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object, Property

    if isinstance(told, list):
        return Array(_type(told[0]))
    if isinstance(told, Mapping):
        return Object([Property(name, _type(kind)) for name, kind in told.items()])
    return {str: DataType.string, float: DataType.double, int: DataType.long}[told]


def check(client: MlflowClient, logged: LoggedModel, model: ModelRecord, texts: Path) -> None:
    """Load the model back from the store and compare its logits with the evaluation's.

    Raises:
        UserError: they differ (``model``).
    """
    import mlflow.pyfunc

    rows, expected = sample(model.predictions, texts)
    with downloaded(client, logged.artifact_location) as path:
        found = logits_of(mlflow.pyfunc.load_model(path), rows)[1]
    _compare(model, "loads back from MLflow", found, expected)


def check_here(model: ModelRecord, texts: Path, max_length: int, windows: Windows = CUT) -> None:
    """Compare the logits of a model that is logged by reference, as it lies in the workspace, with the evaluation's.

    Raises:
        UserError: they differ (``model``).
    """
    import torch

    from components.ml.models.loading import load
    from components.ml.models.scoring import predict_rows

    rows, expected = sample(model.predictions, texts)
    loaded = load(model.folder, torch.device("cpu"))
    found = predict_rows(*loaded, rows, reading=windows.reading(max_length))
    _compare(model, f"in {model.folder} comes", found, expected)


def _compare(model: ModelRecord, comes: str, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Row by row: ``expected`` are logits of any shape in the order of ``found``; NaN is NaN."""
    flat = [np.asarray(one).reshape(-1) for one in found]
    sizes, wanted = ([len(one) for one in rows] for rows in (flat, expected))
    ours, theirs = (np.concatenate([np.zeros(0, np.float32), *rows]) for rows in (flat, expected))
    near = model.tolerance
    if sizes == wanted and np.allclose(ours, theirs, rtol=near, atol=near, equal_nan=True):
        return
    gap = np.nanmax(np.abs(ours - theirs), initial=0.0) if sizes == wanted else float("nan")
    raise UserError(
        f"The model '{model.name}' {comes} with other logits than it was evaluated with: "
        f"{_shape(wanted)} expected, {_shape(sizes)} came, largest difference {gap:.2g}.",
        "Evaluate again under the installed library versions (`dvc repro -f -s evaluate`); nothing was registered.",
        kind="model",
    )


def _shape(sizes: Sequence[int]) -> str:
    """Rows, and how many logits they have."""
    if len(set(sizes)) <= 1:
        return str((len(sizes), *sizes[:1]))
    return f"{sum(sizes):,} of {len(sizes)} rows"


def sample(predictions: Path, texts: Path, count: int = _ROWS_TO_CHECK) -> tuple[list[Input], list[np.ndarray]]:
    """What the model reads of the first test rows, and the logits that evaluation stored for each, in one piece."""
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    with pq.ParquetFile(predictions) as file:
        stored = next(file.iter_batches(count, columns=["row", "logits"]), None)
    numbers = stored["row"].to_pylist() if stored else []
    wanted = ["row", *input_columns(texts)]
    table = ds.dataset(texts, format="parquet").to_table(wanted, filter=ds.field("row").isin(numbers))
    by_row = dict(zip(table["row"].to_pylist(), inputs_of(table), strict=True))
    logits = [np.array(one, dtype=np.float32) for one in stored["logits"].to_pylist()] if stored else []
    return [by_row[number] for number in numbers], logits
