"""Words with tags as in CoNLL, questions on contexts as in SQuAD: what is read, and what is said of a bad file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.params.data import Data
from components.validate.formats import column_names, count_rows, values
from components.validate.reading import check_files, read_rows

CONLL = (
    "\ufeff-DOCSTART- -X- O O\n\n"
    "Paris NNP B-LOC\nhas VBZ O\n \t \n"  # a line of blanks parts sentences too
    "张三\tB-PER\r\n在\tO\r\n北 京\tB-LOC\r\n\r\n\r\n"
    "\ufeff-DOCSTART- -X- O\n\ufeffend O"  # of a file that was put behind another one
)
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "手机",
            "paragraphs": [
                {
                    "context": "这部手机在深圳生产。",
                    "qas": [
                        {"id": "1", "question": "在哪里？", "answers": [{"text": "深圳", "answer_start": 5}]},
                        {"id": "2", "question": "谁？", "is_impossible": True, "answers": []},
                        {"id": "3", "question": "何时？", "is_impossible": True},
                        {"id": "4", "question": "什么？"},
                    ],
                }
            ],
        }
    ],
}


def of(task: str, file: str, **columns: str) -> Data:
    return Data.model_validate({"task": task, "train": f"data/{file}", "columns": columns})


def read(folder: Any, name: str, columns: list[str]) -> list[list[Any]]:
    return list(values(folder.root / "data" / name, columns))


def refused(folder: Any, name: str, content: str) -> UserError:
    with pytest.raises(UserError) as caught:
        count_rows(folder.write(name, content))
    assert caught.value.kind == "data"
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("suffix", ["conll", "iob", "iob2", "bio", "bioes"])
def test_sentences_of_a_conll_file_are_rows(folder: Any, suffix: str) -> None:
    path = folder.write(f"train.{suffix}", CONLL)
    assert column_names(path) == ["tokens", "tags"]
    assert read(folder, path.name, ["tokens", "tags"]) == [
        [["Paris", "has"], ["B-LOC", "O"]],
        [["张三", "在", "北 京"], ["B-PER", "O", "B-LOC"]],
        [["end"], ["O"]],
    ]
    assert count_rows(path) == 3


def test_a_blank_that_is_part_of_a_word_parts_no_columns(folder: Any) -> None:
    folder.write("train.conll", "a\u00a0b O\n")
    assert read(folder, "train.conll", ["tags", "tokens"]) == [[["O"], ["a\u00a0b"]]]


def test_a_line_of_one_column_is_named(folder: Any) -> None:
    error = refused(folder, "train.conll", "Paris B-LOC\n\nhas\n")
    assert error.message.endswith("data/train.conll, line 3: expected a token and its tag, got one column: has.")


def test_a_conll_file_in_another_encoding_is_named_by_its_line(folder: Any) -> None:
    folder.write("train.conll", "a O\n好 O\n".encode("gb18030"))
    with pytest.raises(UserError, match="not UTF-8: line 2, byte 4"):
        count_rows(Path("data/train.conll"))


def test_questions_of_squad_files_are_rows(folder: Any) -> None:
    path = folder.write("train.json", json.dumps(SQUAD, ensure_ascii=False))
    assert column_names(path) == ["question", "context", "answers", "id", "title"]
    context, title = "这部手机在深圳生产。", "手机"
    assert read(folder, "train.json", ["id", "question", "context", "answers", "title"]) == [
        ["1", "在哪里？", context, [{"text": "深圳", "start": 5}], title],
        ["2", "谁？", context, [], title],
        ["3", "何时？", context, [], title],
        ["4", "什么？", context, None, title],
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "it begins with []"),
        ("  \n", "it is blank"),
        ('{"data": [', "malformed JSON"),
        ('{"text": "a"}', "the file has no list of objects under 'data'"),
        ('{"data": [{"paragraphs": [{"qas": 3}]}]}', "data[0].paragraphs[0] has no list of objects under 'qas'"),
        ('{"data": [{}]}', "data[0] has no list of objects under 'paragraphs'"),
    ],
)
def test_json_of_another_layout_is_refused(folder: Any, content: str, words: str) -> None:
    folder.write("train.json", content)
    with pytest.raises(UserError) as caught:
        check_files(of("question-answering", "train.json"))
    assert "data/train.json: expected questions as in SQuAD" in caught.value.message
    assert words in caught.value.message
    assert "name it .jsonl" in caught.value.remedy


def test_lone_surrogates_deep_in_json_become_the_replacement_character(folder: Any) -> None:
    folder.write("rows.jsonl", '{"answers": [{"text": "\\ud83d", "start": 3}], "map": {"a": ["\\udc00"]}}\n')
    assert read(folder, "rows.jsonl", ["answers", "map"]) == [[[{"text": "\ufffd", "start": 3}], {"a": ["\ufffd"]}]]


def test_lists_of_a_table_file_are_json_where_the_task_takes_them_as_text(folder: Any) -> None:
    folder.write("m.csv", 'text,labels\na,"[""x"", ""y""]"\nb,x|y\nc,\nd,[x\n')
    (rows,) = read_rows(of("multi-label-classification", "m.csv"), "train")
    assert rows.values["labels"] == [["x", "y"], "x|y", "", "[x"]
    folder.write("r.tsv", "text\tlabel\te1\te2\n[1]\tx\t[0, 1]\t[1, 2]\nb\tx\t\t\n")
    (rows,) = read_rows(of("relation-classification", "r.tsv", e1="e1", e2="e2"), "train")
    assert rows.values["text"] == ["[1]", "b"]
    assert rows.values["e1"] == [[0, 1], None]


@pytest.mark.parametrize(
    ("task", "lists"), [("token-classification", "tokens and tags"), ("question-answering", "answers")]
)
def test_a_table_file_holds_no_lists_of_words_or_answers(folder: Any, task: str, lists: str) -> None:
    folder.write("train.csv", "tokens,tags,question,context,answers\na,b,c,d,e\n")
    with pytest.raises(UserError, match=f"must hold lists of {lists}, but a CSV file has no lists"):
        check_files(of(task, "train.csv"))
