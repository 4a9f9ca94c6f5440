"""Which task and columns are suggested for a file, by its format, its columns and its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.params.data import Data
from flows.data.suggest import suggest_section


def suggested(path: Path, content: str) -> Data:
    path.write_text(content, encoding="utf-8")
    found = Data.model_validate(YAML(typ="safe").load(suggest_section([path]))["data"])
    assert found.train == f"data/{path.name}"
    return found


def lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def columns(data: Data) -> dict[str, str]:
    return {role: column for role, column in data.columns.model_dump().items() if column is not None}


def test_words_with_tags_are_told_by_their_format(tmp_path: Path) -> None:
    data = suggested(tmp_path / "train.conll", "张三 B-PER\n在 O\n")
    assert (data.task, columns(data)) == ("token-classification", {"tokens": "tokens", "tags": "tags"})


def test_words_with_tags_are_told_by_their_columns(tmp_path: Path) -> None:
    rows = [{"id": 1, "tokens": ["a"], "ner_tags": ["O"], "domain": "新闻"}]
    data = suggested(tmp_path / "train.jsonl", lines(rows))
    expected = {"tokens": "tokens", "tags": "ner_tags", "group": "domain"}
    assert (data.task, columns(data)) == ("token-classification", expected)


def test_questions_are_told_by_their_format_and_kept_together_by_title(tmp_path: Path) -> None:
    data = suggested(tmp_path / "train.json", '{"data": []}')
    expected = {"question": "question", "context": "context", "answers": "answers", "document": "title"}
    assert (data.task, columns(data)) == ("question-answering", expected)


def test_questions_are_told_by_their_columns(tmp_path: Path) -> None:
    rows = [{"question": "谁？", "context": "张三", "answers": {"text": ["张三"], "answer_start": [0]}}]
    data = suggested(tmp_path / "train.jsonl", lines(rows))
    assert (data.task, data.columns.document) == ("question-answering", None)


def test_lists_of_labels_are_several_labels_a_row(tmp_path: Path) -> None:
    rows = [{"text": "好", "labels": None, "source": "店"}, {"text": "差", "labels": ["价格"], "source": "店"}]
    data = suggested(tmp_path / "train.jsonl", lines(rows))
    expected = {"text": "text", "labels": "labels", "group": "source"}
    assert (data.task, columns(data)) == ("multi-label-classification", expected)


def test_entity_markers_are_relations(tmp_path: Path) -> None:
    rows = "sentence,relation\n好,无\n<e1>张三</e1> 在 <e2>北京</e2>,在\n"
    data = suggested(tmp_path / "train.csv", rows)
    assert data.task == "relation-classification"
    assert data.columns.text == "sentence"


@pytest.mark.parametrize(("different", "task"), [(40, "regression"), (5, "text-classification")])
def test_a_number_of_many_values_is_a_score_and_one_of_few_a_class(tmp_path: Path, different: int, task: str) -> None:
    rows = [
        {"sentence1": f"一{number}", "sentence2": f"二{number}", "score": number % different / 8}
        for number in range(60)
    ]
    data = suggested(tmp_path / "train.jsonl", lines(rows))
    assert data.task == task
    assert (data.columns.text, data.columns.text_pair) == ("sentence1", "sentence2")
    assert data.columns.of("score" if task == "regression" else "label") == "score"


def test_a_score_may_have_a_few_strays_for_the_gate_to_tell_of(tmp_path: Path) -> None:
    for strays, task in ((2, "regression"), (10, "text-classification")):
        rows = [f"文{number},{'high' if number < strays else number / 8}\n" for number in range(60)]
        assert suggested(tmp_path / "train.csv", "text,score\n" + "".join(rows)).task == task


def test_all_else_is_a_class_of_a_text(tmp_path: Path) -> None:
    data = suggested(tmp_path / "train.csv", "text,label\n好,1\n差,0\n")
    assert (data.task, columns(data)) == ("text-classification", {"text": "text", "label": "label"})


def test_the_length_is_what_the_base_model_can_read(tmp_path: Path) -> None:
    model = tmp_path / "short"
    model.mkdir()
    (tmp_path / "train.csv").write_text("text,label\n好,1\n", encoding="utf-8")
    for positions, length in ((64, 64), (512, 128), (None, 128)):
        (model / "config.json").write_text(json.dumps({"max_position_embeddings": positions}))
        section = suggest_section([tmp_path / "train.csv", model])
        assert YAML(typ="safe").load(section)["data"]["max_length"] == length
