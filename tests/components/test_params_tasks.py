"""The section data for every kind of task: columns by role, and what only some tasks take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.ml.tasks.table import TASKS
from components.params.columns import Columns, roles
from components.params.data import Data

NAMED = {"text": "review", "label": "stars"}


def data(**changes: Any) -> Data:
    return Data.model_validate({"train": "data/train.jsonl", **changes})


def refused(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        data(**changes)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in caught.value.errors())


def test_rows_are_classified_texts_unless_another_task_is_named() -> None:
    found = data(columns=NAMED)
    assert found.task == "text-classification"
    assert found.kind is TASKS["text-classification"]
    assert (found.columns.text, found.columns.label, found.columns.text_pair) == ("review", "stars", None)
    assert (found.columns.group, found.columns.document) == (None, None)


@pytest.mark.parametrize("task", [name for name in TASKS if name != "text-classification"])
def test_columns_are_called_like_their_roles_and_optional_ones_are_absent(task: str) -> None:
    columns = data(task=task).columns
    assert {role: columns.of(role) for role in TASKS[task].columns} == {role: role for role in TASKS[task].columns}
    assert all(columns.of(role) is None for role in (*TASKS[task].optional, "group", "document"))
    assert columns.text == ("text" if "text" in TASKS[task].columns else None)
    assert columns.label == ("label" if "label" in TASKS[task].columns else None)


def test_any_role_can_be_named() -> None:
    columns = data(task="token-classification", columns={"tags": "ner", "group": "领域"}).columns
    assert (columns.of("tokens"), columns.of("tags"), columns.group) == ("tokens", "ner", "领域")
    assert columns == Columns.model_validate({"tokens": "tokens", "tags": "ner", "group": "领域"})
    assert columns != Columns.model_validate({"tokens": "tokens", "tags": "tags", "group": "领域"})
    assert len({columns, data(task="token-classification").columns}) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "token-clasification"}, "expected the name of a task, got 'token-clasification'; did you mean"),
        ({"columns": NAMED | {"lable": "x"}}, "(text, label, text_pair, group, document), got 'lable'; did you mean"),
        ({"task": "question-answering", "columns": NAMED}, "(question, context, answers, group, document), got 'text'"),
        ({"columns": {"text": "text"}}, "columns.label: Field required"),
        ({}, "columns.text: Field required"),
        ({"columns": {"text": "text", "label": None}}, "columns.label: Input should be a valid string"),
        ({"task": "regression", "columns": {"score": None}}, "columns.score: Input should be a valid string"),
        ({"task": "regression", "labels": ["a", "b"]}, "labels: Value error, expected null, since targets of regress"),
        ({"task": "question-answering", "labels": ["a", "b"]}, "labels: Value error, expected null"),
        (
            {"task": "token-classification", "judgements": {"file": "data/llm.jsonl"}},
            "expected null, since only rows of one class (text-classification, relation-classification) are judged",
        ),
        ({"columns": NAMED | {"text_pair": "b"}, "windows": {"stride": 8}}, "windows: Value error, expected stride nu"),
        ({"columns": NAMED, "max_length": 32, "windows": {"stride": 32}}, "expected a stride below max_length (32)"),
        ({"columns": NAMED, "windows": {"stride": -1}}, "windows.stride: Input should be greater than or equal to 0"),
        ({"columns": NAMED, "windows": {"pooling": "sum"}}, "windows.pooling: Input should be 'mean' or 'max'"),
        (
            {"columns": NAMED, "tasks": {"other": {"type": "regresion", "train": "data/x"}}},
            "tasks.other.type: Value error, expected the name of a task, got 'regresion'; did you mean 'regression'?",
        ),
        (
            {"columns": NAMED, "tasks": {"x": {"type": "regression", "train": "data/x", "columns": {"group": "g"}}}},
            "tasks.x.columns: Value error, expected the roles of regression (text, score, text_pair), got 'group'",
        ),
        ({"columns": NAMED, "tasks": {"other": {"train": "data/x"}}}, "tasks.other.type: Field required"),
    ],
)
def test_what_a_task_does_not_take_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refused(**changes)


def test_windows_and_labels_are_taken_where_they_fit() -> None:
    found = data(task="token-classification", labels=["O", "B-地"], windows={"stride": 16, "pooling": "max"})
    assert found.labels == ["O", "B-地"]
    assert (found.windows.stride, found.windows.pooling) == (16, "max")
    assert data(task="question-answering", windows={"stride": 16}).windows.stride == 16


def test_other_tasks_have_roles_without_groups_or_documents() -> None:
    other = {"type": "question-answering", "train": "data/x.json", "columns": {"answers": "gold"}}
    found = data(columns=NAMED, tasks={"qa": other}).tasks["qa"]
    assert found.kind is TASKS["question-answering"]
    assert {role: found.columns.of(role) for role in roles(found.kind, about=())} == {
        "question": "question",
        "context": "context",
        "answers": "gold",
    }


def test_parameters_import_nothing_heavy() -> None:
    code = (
        "import sys, components.params.project; "
        "print([name for name in ('torch', 'transformers', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
