"""Files are scored, and texts answered, by models of every task: their columns, words and questions, and mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from components.errors import UserError
from components.loader import load_yaml
from components.ml.models.loading import load
from components.ml.models.scoring import predict_rows
from components.ml.rows.inputs import Input, shown
from components.ml.tasks import serving
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Reading
from components.params.project import Params
from flows import cli
from flows.inference import loading, log, rows, scoring
from flows.inference.rows import Rows
from flows.inference.scoring import Model, Settings, score_file
from flows.tracking import models
from flows.tracking.predictor import Predictor
from tests.task_models import INPUTS, LABELS, save_task_model

OTHERS = [task for task in TASKS if task != DEFAULT]
READING = Reading(24, 6)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Callable[[str], Model]:
    """Gives a tiny random model of a task."""
    root, made = tmp_path_factory.mktemp("models"), dict[str, Model]()

    def model(task: str) -> Model:
        if task not in made:
            own = load(save_task_model(root / task, tiny_encoder, task), torch.device("cpu"))

            def predict(inputs: Sequence[Input]) -> tuple[list[str], list[np.ndarray]]:
                return LABELS[task], predict_rows(*own, inputs, reading=READING)

            paired = task == "question-answering"
            made[task] = Model(f"{task}/1", "abc", LABELS[task], predict, paired, TASKS[task], lambda: own[1])
        return made[task]

    return model


def columns(task: str) -> dict[str, list[Any]]:
    """A user's file."""
    if task == "question-answering":
        return dict(zip(("question", "context"), map(list, zip(*INPUTS[task], strict=True)), strict=True))
    return {"tokens" if task == "token-classification" else "text": INPUTS[task]}


def score(path: Path, target: Path, model: Model, settings: Settings | None = None, **named: Any) -> pa.Table:
    given = Rows(path, named.get("column"), named.get("pair"))
    score_file(given, target, model, settings or Settings(), lambda *_: None)
    return pq.read_table(target)


def write(path: Path, table: dict[str, list[Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
    else:
        lines = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("task", OTHERS)
def test_what_a_model_answers_stands_beside_the_rows(
    task: str, suffix: str, found: Callable[[str], Model], tmp_path: Path
) -> None:
    model, given = found(task), columns(task)
    path = write(tmp_path / f"in.{suffix}", {**given, "n": list(range(len(INPUTS[task])))})
    scored = score(path, tmp_path / "out.parquet", model, Settings(log=tmp_path, id_column="n"))
    expected = model.said(INPUTS[task])
    for name, values in given.items():
        assert scored[name].to_pylist() == values
    for key in model.answer_keys():
        for one, answer in zip(scored[f"predicted_{key}"].to_pylist(), expected.answers, strict=True):
            assert one == (pytest.approx(answer[key], abs=1e-6) if isinstance(one, float) else answer[key])
    assert scored.column_names == [*given, "n", *(f"predicted_{key}" for key in model.answer_keys())]
    (part,) = log.read(tmp_path)
    logged = pq.read_table(part).to_pylist()
    said = [model.task.said(one, model.labels) for one in expected.predictions]
    assert [row["label"] for row in logged] == said
    assert [row["id"] for row in logged] == [str(n) for n in range(len(said))]
    first = [each[0] if isinstance(each, tuple) else shown(each) for each in INPUTS[task]]
    assert [row["text"] for row in logged] == first
    assert logged[0]["text_pair"] == (INPUTS[task][0][1] if model.paired else None)
    assert all(0 <= row["score"] <= 1 for row in logged)
    assert model.task.confidence(expected.logits) is not None or {row["score"] for row in logged} == {1.0}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_entities_may_be_named_by_their_places(suffix: str, found: Callable[[str], Model], tmp_path: Path) -> None:
    model = found("relation-classification")
    texts, first, second = ["the film was good", "手机很好"], [[0, 8], [3, 4]], [[13, 17], [0, 2]]
    if suffix == "csv":
        rows = zip(texts, first, second, strict=True)
        lines = [f'{text},"{list(one)}","{list(other)}"\n' for text, one, other in rows]
        path = tmp_path / "in.csv"
        path.write_text("text,e1,e2\n" + "".join(lines), encoding="utf-8")
    else:
        path = write(tmp_path / f"in.{suffix}", {"text": texts, "e1": first, "e2": second})
    scored = score(path, tmp_path / "out.parquet", model)
    expected = model.said(["<e1>the film</e1> was <e2>good</e2>", "<e2>手机</e2>很<e1>好</e1>"])
    assert scored["predicted_label"].to_pylist() == [answer["label"] for answer in expected.answers]
    assert scored["predicted_score"].to_pylist() == pytest.approx([answer["score"] for answer in expected.answers])


def test_files_of_other_formats_are_scored_as_they_are(found: Callable[[str], Model], tmp_path: Path) -> None:
    qas = [{"id": str(n), "question": question, "answers": []} for n, question in enumerate(("was it good", "手机"))]
    paragraphs = [{"context": "the film was good", "qas": qas}]
    squad = tmp_path / "questions.json"
    squad.write_text(json.dumps({"data": [{"title": "films", "paragraphs": paragraphs}]}), encoding="utf-8")
    model = found("question-answering")
    scored = score(squad, tmp_path / "answers.parquet", model)
    expected = model.said([("was it good", "the film was good"), ("手机", "the film was good")]).answers
    assert scored["predicted_answer"].to_pylist() == [answer["answer"] for answer in expected]
    conll = tmp_path / "words.conll"
    conll.write_text("a O\ngood O\nfilm O\n\n这 O\n个 O\n", encoding="utf-8")
    model = found("token-classification")
    scored = score(conll, tmp_path / "entities.parquet", model)
    expected = model.said([["a", "good", "film"], ["这", "个"]]).answers
    told = [[one["type"] for one in row] for row in scored["predicted_entities"].to_pylist()]
    assert told == [[one["type"] for one in answer["entities"]] for answer in expected]


def test_entities_outside_their_text_are_refused(found: Callable[[str], Model], tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {"text": ["good film", "bad"], "e1": [[0, 4], [0, 9]], "e2": [[5, 9], [1, 2]]})
    with pytest.raises(UserError, match=r"row 2 is one with entities that are no spans of the text: \[0, 9\]"):
        score(path, tmp_path / "out.parquet", found("relation-classification"))


def test_columns_have_types_that_empty_answers_do_not_change(found: Callable[[str], Model], tmp_path: Path) -> None:
    wanted = {
        "multi-label-classification": [pa.list_(pa.string())],
        "regression": [pa.float64()],
        "relation-classification": [pa.string(), pa.float64()],
        "question-answering": [pa.string(), pa.int64(), pa.int64(), pa.float64()],
    }
    for task, kinds in wanted.items():
        assert [scoring._type(serving.ANSWERS[key]) for key in found(task).answer_keys()] == kinds
    path = write(tmp_path / "in.jsonl", {"text": [""]})
    kind = score(path, tmp_path / "out.parquet", found("token-classification")).schema.field("predicted_entities").type
    assert {field.name for field in kind.value_type} == {"type", "text", "start", "end", "score"}


def test_probabilities_of_labels_have_columns_where_there_are_any(
    found: Callable[[str], Model], tmp_path: Path
) -> None:
    path = write(tmp_path / "in.parquet", columns("multi-label-classification"))
    model = found("multi-label-classification")
    scored = score(path, tmp_path / "out.parquet", model, Settings(probabilities=True)).to_pylist()
    for row in scored:
        over = [label for label in model.labels if row[f"probability_{label}"] > 0.5]
        assert sorted(row["predicted_labels"]) == sorted(over)
    path = write(tmp_path / "words.parquet", columns("token-classification"))
    with pytest.raises(UserError, match="has no probabilities of labels: it does token-classification"):
        score(path, tmp_path / "no.parquet", found("token-classification"), Settings(probabilities=True))


def test_words_and_texts_with_the_same_words_have_the_same_entities(
    found: Callable[[str], Model], tmp_path: Path
) -> None:
    words = INPUTS["token-classification"]
    model = found("token-classification")
    texts = write(tmp_path / "texts.parquet", {"text": [" ".join(each) for each in words]})
    lists = write(tmp_path / "lists.jsonl", {"words": words})
    scored = [
        score(texts, tmp_path / "1.parquet", model),
        score(lists, tmp_path / "2.parquet", model, column="words"),
    ]
    assert scored[1]["words"].type == pa.list_(pa.string())
    of_texts, of_words = (table["predicted_entities"].to_pylist() for table in scored)
    assert [[one["text"] for one in row] for row in of_texts] == [[one["text"] for one in row] for row in of_words]


@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(
    task: str, found: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "AT_ONCE", 5)
    monkeypatch.setattr(scoring, "TABLES_IN_A_PART", 2)
    path = write(tmp_path / "in.jsonl", {name: values * 6 for name, values in columns(task).items()})
    model, calls, left = found(task), 0, 0
    score(path, tmp_path / "whole.parquet", model)

    def predict(inputs: Sequence[Input]) -> Any:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return model.predict(inputs)

    target, stopping = tmp_path / "out.parquet", dataclasses.replace(model, predict=predict)
    while not target.exists():
        calls, left = calls + 1, 3
        with contextlib.suppress(KeyboardInterrupt):
            score(path, target, stopping)
    assert calls > 1
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize(
    ("task", "table", "said"),
    [
        ("relation-classification", {"text": ["<e1>a</e1> <e2>b</e2>", "a"]}, "row 2 is one without just one <e1>"),
        ("token-classification", {"tokens": [["a"], ["a", " "]]}, "row 2 is one with an empty token: token 1"),
        ("token-classification", {"tokens": [["a"], "a"]}, "row 2 has 'a' in the column 'tokens'; expected a list of"),
        ("token-classification", {"tokens": [["a"], ["a", 5]]}, r"row 2 has \['a', 5\] in the column 'tokens'"),
        ("token-classification", {"tokens": [["a"], None]}, "row 2 has no text in the column 'tokens'"),
        ("token-classification", {"n": [1]}, "expected a column 'text' with the texts; it has n"),
        ("question-answering", {"question": ["a"]}, "expected a column 'context' with the texts; it has question"),
        ("question-answering", {"question": ["a"], "context": [None]}, "row 1 has no text in the column 'context'"),
        ("regression", {"text": ["a"], "predicted_score": [1]}, "has columns that scoring adds: predicted_score"),
    ],
)
def test_a_row_that_the_task_does_not_read_is_told_with_its_number(
    task: str, table: dict[str, list[Any]], said: str, found: Callable[[str], Model], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        score(write(tmp_path / "in.jsonl", table), tmp_path / "out.parquet", found(task))
    assert not (tmp_path / "out.parquet").exists()
    pq.write_table(pa.table({"tokens": [[1]]}), tmp_path / "numbers.parquet")
    with pytest.raises(UserError, match="expected texts, or lists of words, in the column 'tokens'; it holds list<"):
        score(tmp_path / "numbers.parquet", tmp_path / "out.parquet", found("token-classification"))


def test_the_version_in_use_says_what_it_does(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = "question-answering"
    source = save_task_model(tmp_path / "source", tiny_encoder, task)
    logged: Any = SimpleNamespace(artifact_location=str(tmp_path), model_id="m-0123456789abcdef0123456789abcdef")
    models.save(tmp_path / "model", source, 24, ["text", "text_pair"], logged, "0123456789abcdef0123456789abcdef")
    predictor = Predictor(str(tmp_path / "model"), "version 3")
    champions = SimpleNamespace(name="answers", loaded=lambda _: contextlib.nullcontext(predictor))
    monkeypatch.setattr(loading, "Champions", lambda *_: champions)
    monkeypatch.setattr(loading, "choose", lambda *_: SimpleNamespace(number="3", content="abc"))
    params = Params.model_validate(load_yaml(Path(__file__).parents[2] / "params.yaml"))
    with loading.loaded(tmp_path, params) as model:
        assert (model.name, model.labels, model.paired, model.task.name) == ("answers/3", LABELS[task], True, task)
        (answer,) = model.said([("was it good", "the film was good")]).answers
        assert set(answer) == {"answer", "start", "end", "score"}


@pytest.fixture
def use(
    found: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Callable[..., Any]]:
    """Calls the command `predict` of a project whose model in use does a task."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.setattr("components.loader.load_params", lambda path: None)
    monkeypatch.chdir(tmp_path)

    def using(task: str) -> Callable[..., Any]:
        @contextlib.contextmanager
        def loaded(*_: Any) -> Iterator[Model]:
            yield found(task)

        monkeypatch.setattr(loading, "loaded", loaded)

        def invoke(*arguments: str, given: str | None = None) -> Any:
            return CliRunner().invoke(cli.app, ["predict", *arguments], input=given, env={"COLUMNS": "160"})

        return invoke

    return using


@pytest.mark.parametrize("task", OTHERS)
def test_answers_are_told_in_words_or_as_json(
    task: str, found: Callable[[str], Model], use: Callable[[str], Callable[..., Any]]
) -> None:
    given = "<e1>the film</e1> was <e2>good</e2>" if task == "relation-classification" else "the film was good"
    asks = ["--context", "a story 手 机 it was bad"] if task == "question-answering" else []
    done = use(task)(given, *asks)
    assert done.exit_code == 0, done.output
    inputs: list[Input] = [(given, asks[1])] if asks else [given]
    (answer,) = found(task).said(inputs).answers
    for entity in answer.get("entities", []):
        told = f"{entity['type']}: {entity['text']} [{entity['start']}-{entity['end']}] {entity['score']:.1%}"
        assert told in done.stdout
    for label in answer.get("labels", []):
        assert f"{label} {answer['scores'][label]:.1%}" in done.stdout
    if "answer" in answer:
        told = f"{answer['answer']} [{answer['start']}-" if answer["start"] >= 0 else "(no answer)"
        assert told in done.stdout
    if task == "regression":
        assert f"{answer['score']:.4g}" in done.stdout
    line = json.loads(use(task)("--json", given, *asks).stdout)
    assert line["question" if asks else "text"] == given
    for key, value in answer.items():
        assert line[key] == (pytest.approx(value) if isinstance(value, float) else value)
    assert ("probabilities" in line) == (task == "relation-classification")


def test_questions_come_with_a_context_or_a_tab_and_no_other_text_does(
    use: Callable[[str], Callable[..., Any]],
) -> None:
    asked = use("question-answering")
    assert asked(given="was it\tthe film was good\nwho\ta story\n").exit_code == 0
    assert asked("--context", "a film", given="was it\nwho\n").exit_code == 0
    for arguments, said in (
        (["who"], "Give the second: `--context`"),
        (["who", "--pair", "a"], "which has no --pair"),
    ):
        done = asked(*arguments)
        assert (done.exit_code, said in " ".join(done.stderr.split())) == (2, True), done.stderr
    done = use("regression")("a", "--context", "b")
    assert (done.exit_code, "has no --context" in " ".join(done.stderr.split())) == (2, True), done.stderr
    done = use("relation-classification")("<e1>a</e1> <e2>b</e2>", "no markers here")
    assert (done.exit_code, "Text 2 is one without just one" in " ".join(done.stderr.split())) == (2, True), done.stderr
