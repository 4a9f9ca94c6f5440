"""Watching a model whose rows have no one class: its texts are compared, and what isn't looked at is said."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.params.project import Params
from flows.drift import monitor as watching
from flows.drift import report
from flows.repo.workspace import Workspace
from tests.flows.drift.conftest import NOW, OTHERS, Project, texts, write_log


def params(project: Project, task: str) -> Params:
    found = project.params()
    return found.model_copy(update={"data": found.data.model_copy(update={"task": task})})


def watch(project: Project, task: str, labels: Any = None) -> dict[str, Any]:
    return watching.monitor(Workspace(project.root), params(project, task), project.registry, labels=labels, now=NOW)


@pytest.mark.parametrize("task", ["token-classification", "regression", "question-answering"])
def test_texts_are_compared_whatever_the_task_and_the_rest_is_said_to_be_left_out(project: Project, task: str) -> None:
    write_log(project.root, texts(200, 8, OTHERS))
    found = watch(project, task)
    assert found["outcome"] == report.DRIFT
    assert "word frequencies" in report.drifted(found)
    assert not {"predicted labels", "confidence"} & {test["name"] for test in found["tests"]}
    (note,) = found["notes"]
    assert note.startswith("What the model says isn't looked at: ")
    assert f"a row has one class, which {task} doesn't have" in note
    assert note in report.markdown(found)
    assert project.registry.loaded_versions == []


def test_rows_of_words_are_read_as_texts(project: Project) -> None:
    validated = project.root / "artifacts/validate"
    for path in validated.rglob("*.parquet"):
        table = pq.read_table(path)
        words = pa.array([text.split(" ") for text in table["text"].to_pylist()])
        pq.write_table(table.drop_columns(["text", "label"]).append_column("tokens", words), path)
    write_log(project.root, texts(200, 8))
    assert watch(project, "token-classification")["outcome"] == report.STEADY


def test_labels_that_came_later_are_refused_in_words(project: Project) -> None:
    write_log(project.root, texts(200, 8))
    labels = project.root / "labels.jsonl"
    labels.write_text(json.dumps({"text": "a", "label": "B"}) + "\n")
    with pytest.raises(UserError, match=r"this project's task is token-classification\.") as caught:
        watch(project, "token-classification", labels)
    assert caught.value.kind == "parameters"
    assert "Leave out --labels" in caught.value.remedy
