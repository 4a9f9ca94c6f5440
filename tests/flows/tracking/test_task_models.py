"""Models of every task come back from MLflow with the evaluation's logits, answer in their task's words, and refuse."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.errors import UserError
from components.ml.models.loading import load
from components.ml.models.scoring import predict_rows
from components.ml.models.task_models import task_of
from components.ml.rows.inputs import Input
from components.ml.tasks import configured
from components.ml.tasks.row_task import RowTask
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Reading
from components.params.data import CUT, Windows
from flows.tracking import models, store
from flows.tracking.predictor import Predictor
from flows.tracking.record import ModelRecord, PipelineRecord
from flows.tracking.tracker import Tracker
from tests.task_models import INPUTS, LABELS, LONG, save_task_model, save_tiny_onnx

RUN = "0123456789abcdef0123456789abcdef"
MAX_LENGTH = 24
IN_WINDOWS = Windows(stride=6, pooling="max")
OTHERS = [task for task in TASKS if task != DEFAULT]
BY_POSITION = [task for task in TASKS if not isinstance(TASKS[task], RowTask)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[str, Path]:
    """A transformers folder for each task, and ``onnx TASK`` for those with logits in several positions."""
    root = tmp_path_factory.mktemp("tasks")
    made = {task: save_task_model(root / task, tiny_encoder, task) for task in TASKS}
    return made | {f"onnx {task}": save_tiny_onnx(root / f"onnx-{task}", task) for task in BY_POSITION}


@pytest.fixture(scope="module")
def saved(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the place of a saved model; saves each once."""
    made: dict[Any, Path] = {}

    def place(name: str, windows: Windows = IN_WINDOWS, columns: tuple[str, ...] = ()) -> Path:
        key = (name, windows.stride, columns)
        if key not in made:
            path = made[key] = tmp_path_factory.mktemp("saved") / "model"
            logged: Any = SimpleNamespace(artifact_location=str(path), model_id=f"m-{RUN}")
            read = columns or (["text", "text_pair"] if "question" in name else ["text"])
            models.save(path, folders[name], MAX_LENGTH, read, logged, RUN, windows)
        return made[key]

    return place


def opened(path: Path) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(path))


def evaluated(folder: Path, inputs: list[Input], windows: Windows) -> list[np.ndarray]:
    return predict_rows(*load(folder, torch.device("cpu")), inputs, reading=windows.reading(MAX_LENGTH))


@pytest.mark.parametrize("windows", [CUT, IN_WINDOWS], ids=["cut", "windows"])
@pytest.mark.parametrize("name", [*TASKS, *(f"onnx {task}" for task in BY_POSITION)])
def test_a_predictor_gives_the_logits_of_the_evaluation(
    name: str, windows: Windows, folders: dict[str, Path], saved: Callable[..., Path]
) -> None:
    task = name.removeprefix("onnx ")
    predictor = Predictor(str(saved(name, windows)), "version 1")
    labels, found = predictor.rows(INPUTS[task])
    expected = evaluated(folders[name], INPUTS[task], windows)
    assert (predictor.task, labels) == (task, LABELS[task])
    assert [one.shape for one in found] == [one.shape for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert predictor.rows([]) == (labels, [])
    if task in BY_POSITION:
        with pytest.raises(UserError, match=r"version 1 gives logits of several positions"):
            predictor(INPUTS[task])
    else:
        assert predictor(INPUTS[task])[1].shape == (len(found), len(labels))


@pytest.mark.parametrize("task", OTHERS)
def test_answers_are_those_of_the_task(task: str, folders: dict[str, Path], saved: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer

    kind, inputs = TASKS[task], INPUTS[task]
    tokenizer = AutoTokenizer.from_pretrained(folders[task])
    logits = evaluated(folders[task], inputs, IN_WINDOWS)
    expected = kind.answers(inputs, kind.decode(inputs, logits, LABELS[task], tokenizer), logits, LABELS[task])
    given = pd.DataFrame(inputs, columns=["question", "context"]) if task == "question-answering" else inputs
    found = opened(saved(task)).predict(given).to_dict("records")
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        other.pop("scores", None)
        assert set(one) == set(other)
        assert json.dumps(rounded(one), ensure_ascii=False) == json.dumps(rounded(other), ensure_ascii=False)


def rounded(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: rounded(value) for name, value in sorted(told.items())}
    if isinstance(told, list):
        return [rounded(value) for value in told]
    return round(float(told), 4) if isinstance(told, float | np.floating) else told


def test_what_can_be_asked_for_follows_from_the_task(saved: Callable[..., Path]) -> None:
    several = opened(saved("multi-label-classification"))
    asked = {"return": "probabilities"}
    shares = several.predict(["a good film", ""], params=asked)
    assert list(shares.columns) == LABELS["multi-label-classification"]
    labels = several.predict(["a good film", ""])["labels"]
    assert [sorted(row.index[row > 0.5]) for _, row in shares.iterrows()] == [sorted(one) for one in labels]
    relation = opened(saved("relation-classification"))
    assert relation.predict(INPUTS["relation-classification"], params=asked).sum(axis=1).to_numpy() == pytest.approx(1)
    for task in ("regression", *BY_POSITION):
        with pytest.raises(MlflowException, match="'return' to be one of answers, logits; got 'probabilities'"):
            opened(saved(task)).predict([["a", "b"]], params=asked)
    for task in OTHERS:
        assert len(opened(saved(task)).predict([])) == 0


def test_a_classifier_of_texts_in_windows_answers_as_one_that_cuts(saved: Callable[..., Path]) -> None:
    given = ["a good film", "bad", ""]
    plain, windowed = (opened(saved(DEFAULT, windows)) for windows in (CUT, IN_WINDOWS))
    for asked in ("label", "probabilities", "logits"):
        ours, theirs = (model.predict(given, params={"return": asked}) for model in (windowed, plain))
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False, rtol=1e-4)
    assert not (saved(DEFAULT, CUT) / "artifacts").joinpath("code").exists()
    assert [path.name for path in (saved(DEFAULT, CUT) / "artifacts").iterdir()] == [DEFAULT]


def test_words_and_texts_are_read_alike_and_entities_have_characters(saved: Callable[..., Path]) -> None:
    model = opened(saved("token-classification"))
    text = "the film was good, a story 好"
    words = ["the", "film", "was", "good", ",", "a", "story", "好"]
    (of_text,) = model.predict([text])["entities"]
    (of_words,) = model.predict([words])["entities"]
    assert of_text
    joined = " ".join(words)
    for one, other in zip(of_text, of_words, strict=True):
        assert one["type"] == other["type"]
        assert text[one["start"] : one["end"]] == one["text"]
        assert joined[other["start"] : other["end"]] == other["text"]
    expected = model.predict([words, ["bad"]])["entities"].tolist()
    for form in (
        pd.DataFrame({"id": [1, 2], "tokens": [words, ["bad"]]}),
        pd.DataFrame({"text": ["x", "y"], "tokens": [np.array(words), np.array(["bad"])]}),
        {"tokens": [words, ["bad"]]},
        [{"tokens": words}, {"tokens": ["bad"]}],
    ):
        assert model.predict(form)["entities"].tolist() == expected
    for of_texts in ([text], {"text": [text]}, pd.DataFrame({"text": [text]}), [{"text": text}]):
        assert model.predict(of_texts)["entities"].tolist() == [of_text]
    assert model.predict(["", [], "  "])["entities"].tolist() == [[], [], []]


def test_questions_come_in_every_form_and_answers_stand_in_their_contexts(saved: Callable[..., Path]) -> None:
    model = opened(saved("question-answering"))
    rows = INPUTS["question-answering"]
    first, second = ([row[place] for row in rows] for place in (0, 1))
    expected = model.predict({"question": first, "context": second})
    for (_, context), answer in zip(rows, expected.to_dict("records"), strict=True):
        assert answer["answer"] == (context[answer["start"] : answer["end"]] if answer["start"] >= 0 else "")
        assert 0 <= answer["score"] <= 1
    for form in (
        pd.DataFrame({"context": second, "id": range(4), "question": first}),
        [{"question": question, "context": context} for question, context in rows],
        [list(row) for row in rows],
    ):
        pd.testing.assert_frame_equal(model.predict(form), expected)


def test_marked_entities_may_come_as_spans(saved: Callable[..., Path]) -> None:
    model = opened(saved("relation-classification"))
    expected = model.predict(["<e1>the film</e1> was <e2>good</e2>"])
    spans = {"text": ["the film was good"], "e1": [[0, 8]], "e2": [[13, 17]]}
    for form in (spans, pd.DataFrame(spans), [{name: value[0] for name, value in spans.items()}]):
        pd.testing.assert_frame_equal(model.predict(form), expected)


@pytest.mark.parametrize(
    ("task", "given", "said"),
    [
        ("regression", ["a", 5], r"expected texts; number 1, counted from 0, is 5 \(int\)"),
        ("multi-label-classification", [None], "expected texts; number 0"),
        ("multi-label-classification", pd.DataFrame({"a": ["b"]}), "expected one column 'text'; got the columns 'a'"),
        ("token-classification", ["a", 5], "expected a text or a list of words; number 1, counted from 0, is 5"),
        ("token-classification", [["a", 5]], "number 0, counted from 0, is a list with 5"),
        ("token-classification", [["a"], ["a", " "]], "number 1, counted from 0, is one with an empty token: token 1"),
        ("token-classification", {"words": ["a"]}, "expected 'tokens'; got 'words'"),
        ("relation-classification", ["<e1>a</e1> <e2>b</e2>", "a b"], "number 1, .* one without just one .*no markers"),
        ("relation-classification", [""], "number 0, counted from 0, is one without <e1>"),
        ("relation-classification", ["<e1>a <e2>b</e1></e2>"], "with overlapping entity markers"),
        ("question-answering", ["a question"], "expected rows of 'question', 'context'; number 0"),
        ("question-answering", [{"question": "a"}], "expected texts as 'context'; number 0, counted from 0, is None"),
        ("question-answering", {"question": ["a"], "context": []}, "expected as many question as context; got 1 and 0"),
        ("question-answering", pd.DataFrame({"question": ["a"]}), "the columns 'question', 'context', each once"),
    ],
)
def test_what_a_task_does_not_read_is_refused_with_its_number(
    task: str, given: Any, said: str, saved: Callable[..., Path]
) -> None:
    with pytest.raises(MlflowException, match=said) as caught:
        opened(saved(task)).predict(given)
    assert caught.value.get_http_status_code() == 400


def test_pairs_of_other_tasks_are_read(folders: dict[str, Path], saved: Callable[..., Path]) -> None:
    pairs: list[Input] = [("a good film", "bad"), ("", LONG)]
    predictor = Predictor(str(saved("regression", CUT, ("text", "text_pair"))), "version 1")
    expected = evaluated(folders["regression"], pairs, CUT)
    np.testing.assert_allclose(np.concatenate(predictor.rows(pairs)[1]), np.concatenate(expected), atol=1e-5)
    with pytest.raises(UserError, match="reads pairs of texts; got single texts"):
        predictor.rows(["a"])


@pytest.mark.parametrize(
    "name", ["token-classification", "relation-classification", "onnx token-classification", "onnx question-answering"]
)
def test_a_model_needs_no_code_of_ours_and_no_folder_once_it_is_loaded(
    name: str, saved: Callable[..., Path], tmp_path: Path
) -> None:
    import shutil

    task = name.removeprefix("onnx ")
    shutil.copytree(saved(name), tmp_path / "model")
    code = """
import json, shutil, sys
sys.modules["components"] = sys.modules["flows"] = None
if sys.argv[3] == "onnx": sys.modules["torch"] = None
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
shutil.rmtree(sys.argv[1])
rows = json.loads(sys.argv[2])
print(model.predict(rows).to_json(orient="records"))
"""
    kind = "onnx" if "onnx" in name else "torch"
    command = [sys.executable, "-P", "-c", code, str(tmp_path / "model"), json.dumps(INPUTS[task]), kind]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = json.loads(opened(saved(name)).predict([*map(plain, INPUTS[task])]).to_json(orient="records"))
    assert rounded(found) == rounded(expected)


def plain(given: Any) -> Any:
    return list(given) if isinstance(given, tuple) else given


def test_what_is_saved_names_its_outputs_and_holds_no_pickle(saved: Callable[..., Path]) -> None:
    from mlflow.models import Model

    outputs = {task: Model.load(str(saved(task))).signature.outputs.to_dict() for task in OTHERS}
    named = {task: [output["name"] for output in told] for task, told in outputs.items()}
    assert named["multi-label-classification"] == ["labels"]
    assert named["regression"] == ["score"]
    assert named["token-classification"] == ["entities"]
    assert named["relation-classification"] == ["label", "score"]
    assert named["question-answering"] == ["answer", "start", "end", "score"]
    assert set(outputs["token-classification"][0]["items"]["properties"]) == {"type", "text", "start", "end", "score"}
    for task in OTHERS:
        files = [path for path in saved(task).rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
        assert {path.suffix for path in files} <= {"", ".json", ".safetensors", ".txt", ".yaml", ".py"}
        assert not any("import components" in text or "from components" in text for text in sources(files))


def sources(files: list[Path]) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in files if path.suffix == ".py"]


def record(root: Path, folder: Path, task: str, base: PipelineRecord) -> ModelRecord:
    """A model evaluated in windows on its own test rows."""
    inputs = INPUTS[task]
    columns: dict[str, Any] = {"row": pa.array(range(len(inputs)), pa.int64())}
    if task == "token-classification":
        columns |= {"text": [" ".join(words) for words in inputs], "tokens": inputs}
    elif task == "question-answering":
        columns |= {"text": [row[0] for row in inputs], "text_pair": [row[1] for row in inputs]}
    else:
        columns["text"] = inputs
    (root / "test").mkdir(parents=True)
    pq.write_table(pa.table(columns), root / "test" / "part-00000.parquet")
    logits = [one.ravel() for one in evaluated(folder, inputs, IN_WINDOWS)]
    stored = pa.table({"row": columns["row"], "logits": pa.array(logits, pa.list_(pa.float32()))})
    pq.write_table(stored, root / "predictions.parquet")
    changed = {"folder": folder, "content": f"{task}.dir", "predictions": root / "predictions.parquet"}
    return dataclasses.replace(base.models[-1], **changed)


@pytest.mark.parametrize("task", [DEFAULT, *OTHERS])
def test_a_model_is_logged_once_for_its_content_and_windows_and_checked(
    task: str,
    folders: dict[str, Path],
    make_tracker: Callable[[], Tracker],
    one_model: PipelineRecord,
    tmp_path: Path,
) -> None:
    tracker = make_tracker()
    model = record(tmp_path / "evaluated", folders[task], task, one_model)
    client = MlflowClient(store.tracking_uri(tracker.root))
    experiment = client.create_experiment("tasks", (tmp_path / "mlruns").as_uri())
    run = client.create_run(experiment).info.run_id
    test = tmp_path / "evaluated" / "test"
    made = models.ensure(client, experiment, run, model, test, MAX_LENGTH, IN_WINDOWS)
    assert models.ensure(client, experiment, run, model, test, MAX_LENGTH, IN_WINDOWS) == made
    logged = client.get_logged_model(made)
    assert (logged.status, logged.tags[models.WINDOWS]) == ("READY", "6 max")
    named = {"token-classification": task, "question-answering": task}
    assert logged.model_type == named.get(task, "text-classification")
    with pytest.raises(UserError, match="loads back from MLflow with other logits than it was evaluated with"):
        models.ensure(client, experiment, run, model, test, MAX_LENGTH - 8, IN_WINDOWS)
    referred = dataclasses.replace(model, content="large.dir", reference={models.BY_REFERENCE: "large.dir"})
    assert models.ensure(client, experiment, run, referred, test, MAX_LENGTH, IN_WINDOWS)
    with pytest.raises(UserError, match="comes with other logits"):
        models.ensure(client, experiment, run, referred, test, MAX_LENGTH - 8, IN_WINDOWS)


def test_configurations_are_read_alike_with_and_without_torch(folders: dict[str, Path]) -> None:
    for task in TASKS:
        config = json.loads((folders[task] / "config.json").read_text(encoding="utf-8"))
        assert configured.configured_task(config).name == task_of(config).name == task
        assert configured.configured_labels(config) == LABELS[task]
        without = {key: value for key, value in config.items() if key != configured.TASK}
        assert configured.configured_task(without).name == task_of(without).name
    assert configured.configured_labels({}) == ["LABEL_0", "LABEL_1"]
    assert Reading(8) == CUT.reading(8)
