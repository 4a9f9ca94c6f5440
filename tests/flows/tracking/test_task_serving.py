"""`mlflow models serve` answers with entities and with answers to questions, and refuses what a task doesn't read."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from components.params.data import Windows
from flows.tracking import models
from tests.flows.tracking.test_serving import asked, served
from tests.task_models import LABELS, LONG, save_tiny_onnx

RUN = "0123456789abcdef0123456789abcdef"
WORDS = ["the", "film", "was", "good", "手", "机"]


@pytest.fixture(scope="module", params=["token-classification", "question-answering"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A task, and the address of a tiny ONNX model of it that reads windows of 16 tokens."""
    root = tmp_path_factory.mktemp("served")
    logged: Any = SimpleNamespace(artifact_location=str(root), model_id=f"m-{RUN}")
    columns = ["text", "text_pair"] if request.param == "question-answering" else ["tokens"]
    source = save_tiny_onnx(root / "source", request.param)
    models.save(root / "model", source, 16, columns, logged, RUN, Windows(stride=4))
    with served(root / "model", root / "log") as address:
        yield request.param, address


def predictions(address: str, body: Any) -> list[Any]:
    code, found = asked(address, body)
    assert code == 200, found
    return list(found["predictions"])


def test_single_rows_batches_and_long_and_empty_ones_are_answered(server: tuple[str, str]) -> None:
    task, address = server
    _entities(address) if task == "token-classification" else _answers(address)
    assert predictions(address, {"inputs": []}) == []


def _entities(address: str) -> None:
    text = " ".join(WORDS)
    (single,) = predictions(address, {"inputs": [text]})
    assert single["entities"]
    for entity in single["entities"]:
        assert set(entity) == {"type", "text", "start", "end", "score"}
        assert text[entity["start"] : entity["end"]] == entity["text"]
    for body in (
        {"inputs": text},
        {"inputs": [WORDS]},
        {"instances": [{"tokens": WORDS}]},
        {"dataframe_split": {"columns": ["id", "tokens"], "data": [[7, WORDS]]}},
        {"dataframe_split": {"columns": ["text"], "data": [[text]]}},
    ):
        assert predictions(address, body) == [single]
    ragged = [WORDS, WORDS[:2], [], ["film"] * 100]
    found = predictions(address, {"dataframe_records": [{"tokens": words} for words in ragged]})
    assert found[0] == single
    assert found[2] == {"entities": []}
    # Each word's tag follows from the word alone: what is read in windows is what would be read in one piece.
    (whole,) = predictions(address, {"inputs": [LONG]})
    by_word = predictions(address, {"inputs": LONG.split()})
    types = [entity["type"] for one in by_word for entity in one["entities"]]
    assert {entity["type"] for entity in whole["entities"]} == set(types)
    assert max(entity["end"] for entity in whole["entities"]) > len(LONG) - 20
    (flat,) = predictions(address, {"inputs": [text], "params": {"return": "logits"}})
    assert len(flat["logits"]) == len(WORDS) * len(LABELS["token-classification"])


def _answers(address: str) -> None:
    rows = [{"question": "was it good", "context": "the film was good"}, {"question": "手机", "context": "这 个 手 机"}]
    found = predictions(address, {"dataframe_records": rows})
    for row, answer in zip(rows, found, strict=True):
        assert set(answer) == {"answer", "start", "end", "score"}
        expected = row["context"][answer["start"] : answer["end"]] if answer["start"] >= 0 else ""
        assert answer["answer"] == expected
    columns = {name: [row[name] for row in rows] for name in ("question", "context")}
    for body in (
        {"inputs": columns},
        {"inputs": rows},
        {"instances": rows},
        {"inputs": [list(row.values()) for row in rows]},
        {"dataframe_split": {"columns": ["context", "question"], "data": [[*row.values()][::-1] for row in rows]}},
    ):
        assert predictions(address, body) == found
    assert predictions(address, {"dataframe_records": rows[:1]}) == found[:1]
    (long,) = predictions(address, {"dataframe_records": [{"question": "story", "context": LONG}]})
    assert long["answer"] == (LONG[long["start"] : long["end"]] if long["start"] >= 0 else "")
    (empty,) = predictions(address, {"dataframe_records": [{"question": "", "context": ""}]})
    assert (empty["answer"], empty["start"], empty["end"]) == ("", -1, -1)
    (flat,) = predictions(address, {"dataframe_records": rows[:1], "params": {"return": "logits"}})
    assert len(flat["logits"]) == 2 * (1 + 4)


def test_what_the_task_does_not_read_is_refused_with_its_number(server: tuple[str, str]) -> None:
    task, address = server
    wrong: list[tuple[Any, str]] = [({"inputs": ["a"], "params": {"return": "colours"}}, "one of answers, logits")]
    if task == "token-classification":
        wrong += [
            ({"inputs": [5]}, "expected a text or a list of words; number 0, counted from 0, is 5"),
            ({"dataframe_records": [{"tokens": ["a"]}, {"tokens": ["a", 5]}]}, "number 1, counted from 0"),
            ({"dataframe_records": [{"tokens": ["a"]}, {"tokens": None}]}, "number 1, counted from 0, is None"),
            ({"dataframe_records": [{"tokens": [" "]}]}, "with an empty token: token 0"),
            ({"dataframe_records": [{"words": ["a"]}]}, "expected one column 'tokens'; got the columns 'words'"),
            ({"inputs": ["a"], "params": {"return": "probabilities"}}, "one of answers, logits; got 'probabilities'"),
        ]
    else:
        wrong += [
            ({"inputs": ["a question"]}, "expected rows of 'question', 'context'; number 0"),
            ({"dataframe_records": [{"question": "a"}]}, "expected the columns 'question', 'context', each once"),
            ({"dataframe_records": [{"question": "a", "context": 5}]}, "expected texts as 'context'; number 0"),
            ({"dataframe_records": [{"question": "a", "context": "b"}, {"question": "a"}]}, "number 1, counted from 0"),
        ]
    for body, told in wrong:
        code, answer = asked(address, body)
        assert (code, told in answer) == (400, True), answer
        assert "Traceback" not in answer
