"""Other tasks: what is written of their rows, and one readable message for rows that can't be used."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.ml.tasks.table import TASKS
from components.validate.canonical import layout
from components.validate.tasks import write_tasks

TOPICS = [
    {"text": f"第{number}篇：{'手机' if number % 3 else '天气'}", "label": f"{number % 3}"} for number in range(60)
]
ENTITIES = [
    {"tokens": ["张三", "在", "Paris", str(number)], "tags": ["人", "O", "地", "O"]} for number in range(30)
]  # fmt: skip


def write(folder: Any, tasks: dict[str, Any], *, output: str = "tasks", **changes: Any) -> dict[str, Any]:
    """The tasks written to a folder of that name beside a target whose test holds the texts 第0..第9."""
    folder.write_rows("train", [{"text": f"训练{number}", "label": str(number % 2)} for number in range(40)])
    folder.write_rows("test", [{"text": f"第{number}篇:手机", "label": "0"} for number in range(9)])
    sources = {name: f"data/{name}.jsonl" for name in ("train", "test")}
    data = folder.data(**{"validation": None, **sources, "tasks": tasks, **changes})
    with folder.facts(data) as database:
        return write_tasks(database, data, folder.root, folder.root, folder.root / output)


def lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def topics(**changes: Any) -> dict[str, Any]:
    return {"topics": {"type": "text-classification", "train": "data/tasks/topics.jsonl", **changes}}


def entities(**changes: Any) -> dict[str, Any]:
    return {"entities": {"type": "token-classification", "train": "data/tasks/entities.jsonl", **changes}}


def read(folder: Any, name: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(folder.root / "tasks" / name).to_pydict()
    return found


def refused(folder: Any, tasks: dict[str, Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        write(folder, tasks)
    assert caught.value.kind == "data"
    assert caught.value.remedy
    return caught.value


def test_a_text_task_becomes_shards_of_row_text_and_label(folder: Any) -> None:
    folder.write("tasks/topics.jsonl", lines(TOPICS))
    folder.write("tasks/held.csv", "text,label\n很新,2\n旧的,0\n")
    about = write(folder, topics(validation="data/tasks/held.csv"))
    assert json.loads((folder.root / "tasks/tasks.json").read_text("utf-8")) == {
        "topics": {"type": "text-classification", "labels": ["0", "1", "2"]}
    }
    train = pq.read_table(folder.root / "tasks/topics/train")
    assert train.schema.equals(layout(TASKS["text-classification"], about=False))
    assert train.to_pydict() == {
        "row": list(range(60)),
        "text": [row["text"] for row in TOPICS],
        "label": [int(row["label"]) for row in TOPICS],
    }
    assert read(folder, "topics/validation") == {"row": [0, 1], "text": ["很新", "旧的"], "label": [2, 0]}
    assert about["topics"]["rows"] == {"train": 60, "validation": 2}
    assert sorted(path.name for path in (folder.root / "tasks/topics").iterdir()) == ["train", "validation"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_token_task_becomes_shards_of_row_tokens_and_tags(folder: Any, suffix: str) -> None:
    path = folder.write(f"tasks/entities.{suffix}", lines(ENTITIES))
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ENTITIES), path)
    write(folder, entities(train=f"data/tasks/entities.{suffix}", validation=f"data/tasks/entities.{suffix}"))
    train = pq.read_table(folder.root / "tasks/entities/train")
    assert train.schema.equals(layout(TASKS["token-classification"], worded=True, about=False))
    labels = json.loads((folder.root / "tasks/tasks.json").read_text("utf-8"))["entities"]["labels"]
    assert labels == sorted(["人", "O", "地"])
    assert train.column("tokens").to_pylist() == [row["tokens"] for row in ENTITIES]
    assert [[labels[tag] for tag in tags] for tags in train.column("label").to_pylist()] == [
        row["tags"] for row in ENTITIES
    ]


def test_numbers_are_labels_tags_and_tokens_too(folder: Any) -> None:
    folder.write("tasks/entities.jsonl", lines([{"w": ["a", 5, True], "t": [0, 1, 0]}, {"w": ["b"], "t": [1]}]))
    write(folder, entities(columns={"tokens": "w", "tags": "t"}))
    assert json.loads((folder.root / "tasks/tasks.json").read_text("utf-8"))["entities"]["labels"] == ["0", "1"]
    tokens = read(folder, "entities/train")["tokens"] + read(folder, "entities/validation")["tokens"]
    assert sorted(tokens) == [["a", "5", "true"], ["b"]]


def test_without_tasks_there_is_an_empty_list_of_them(folder: Any) -> None:
    assert write(folder, {}) == {}
    assert [path.name for path in (folder.root / "tasks").iterdir()] == ["tasks.json"]
    assert (folder.root / "tasks/tasks.json").read_text("utf-8") == "{}\n"


def test_validation_rows_are_split_off_by_whole_texts_and_by_class(folder: Any) -> None:
    rows = TOPICS * 5 + [{**row, "text": row["text"].replace("：", " ")} for row in TOPICS]
    folder.write("tasks/topics.jsonl", lines(rows))
    write(folder, topics(), split={"validation": 0.2})
    train, held = read(folder, "topics/train"), read(folder, "topics/validation")
    assert sorted(train["row"] + held["row"]) == list(range(360))
    assert train["row"] == sorted(train["row"])
    kept, taken = ({text.replace("：", " ") for text in split["text"]} for split in (train, held))
    assert not kept & taken
    assert [held["label"].count(label) for label in range(3)] == [24, 24, 24]


@pytest.mark.parametrize("tasks", [topics(), entities()], ids=["texts", "tokens"])
def test_the_order_of_the_rows_and_of_the_tasks_decides_nothing(folder: Any, tasks: dict[str, Any]) -> None:
    column = "text" if "topics" in tasks else "tokens"
    rows = TOPICS if "topics" in tasks else ENTITIES

    def held_out(rows: Sequence[Any], seed: int, output: str) -> set[str]:
        (name,) = tasks
        folder.write(f"tasks/{name}.jsonl", lines(rows))
        write(folder, tasks, output=output, split={"seed": seed})
        return {str(value) for value in pq.read_table(folder.root / output / name / "validation")[column].to_pylist()}

    first = held_out(rows, 1, "first")
    assert first == held_out(random.Random(2).sample(rows, len(rows)), 1, "second")
    assert first != held_out(rows, 2, "third")
    assert 0 < len(first) < 20


@pytest.mark.parametrize("share", [0.01, 0.79])
def test_each_split_has_a_row_however_few_there_are(folder: Any, share: float) -> None:
    folder.write("tasks/topics.jsonl", lines([{"text": "好", "label": "a"}, {"text": "差", "label": "b"}]))
    about = write(folder, topics(), split={"validation": share, "test": 0.2})
    assert about["topics"]["rows"] == {"train": 1, "validation": 1}


def test_training_texts_that_stand_in_the_test_are_counted(folder: Any) -> None:
    folder.write("tasks/topics.jsonl", lines(TOPICS))
    folder.write("tasks/held.jsonl", lines([{"text": "第1篇手机", "label": "1"}]))
    about = write(folder, topics(validation="data/tasks/held.jsonl"))
    assert about["topics"]["test_texts"] == sum(1 for number in range(9) if number % 3)


def test_bad_texts_are_named_by_row_and_fault(folder: Any) -> None:
    bad = [{"text": None, "label": "a"}, {"text": " 　", "label": "a"}, {"text": "好"}, {"text": "好", "label": " "}]
    folder.write("tasks/topics.jsonl", lines([*TOPICS[:2], *bad, *[{"text": ""}] * 9]))
    error = refused(folder, topics())
    assert error.message.splitlines() == [
        f"{folder.root}/data/tasks/topics.jsonl (data.tasks.topics.train) can't be used:",
        "  11 rows without a text: row 2, row 3, row 6, row 7, row 8, ...",
        "  11 rows without a label: row 4, row 5, row 6, row 7, row 8, ...",
    ]
    assert "counted from 0" in error.remedy


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": "a b", "tags": ["O"]}, "1 row without a list of tokens: row 30 ('a b')"),
        ({"tokens": ["a"], "tags": 3}, "without a list of tags: row 30 (3)"),
        ({"tags": ["O"]}, "without a list of tokens: row 30 (null)"),
        ({"tokens": [], "tags": []}, "an empty list of tokens: row 30"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "not as many tags as tokens: row 30 (2 tokens, 1 tags)"),
        ({"tokens": ["a", "　"], "tags": ["O", "O"]}, "an empty token: row 30 (token 1)"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "an empty token: row 30 (token 1)"),
        ({"tokens": ["a", "b"], "tags": [None, "O"]}, "an empty tag: row 30 (tag 0)"),
        ({"tokens": ["a", ["b"]], "tags": ["O", "O"]}, "a token that is no text: row 30 (['b'])"),
    ],
)
def test_bad_tokens_and_tags_are_named_by_row(folder: Any, row: dict[str, Any], words: str) -> None:
    folder.write("tasks/entities.jsonl", lines([*ENTITIES, row]))
    assert words in refused(folder, entities()).message


def test_labels_that_only_validation_rows_have_are_named(folder: Any) -> None:
    folder.write("tasks/entities.jsonl", lines(ENTITIES))
    folder.write("tasks/held.jsonl", lines([*ENTITIES[:3], {"tokens": ["x", "y"], "tags": ["地方", "机构"]}]))
    message = refused(folder, entities(validation="data/tasks/held.jsonl")).message
    assert "data/tasks/held.jsonl (data.tasks.entities.validation)" in message
    assert "1 row with a label that no training row has: row 3 ('地方'; did you mean '地'?)" in message


def test_a_single_label_is_refused(folder: Any) -> None:
    folder.write("tasks/topics.jsonl", lines([{"text": f"第{number}", "label": "a"} for number in range(5)]))
    assert "has only 1 different labels in the column 'label': a" in refused(folder, topics()).message


def test_one_text_alone_cannot_be_split(folder: Any) -> None:
    folder.write("tasks/topics.jsonl", lines([{"text": "同", "label": "a"}, {"text": "同！", "label": "b"}]))
    error = refused(folder, topics())
    assert "one text in all its rows" in error.message
    assert "data.tasks.topics.validation" in error.remedy


def test_the_same_rows_give_the_same_bytes(folder: Any) -> None:
    folder.write("tasks/topics.jsonl", lines(TOPICS))
    folder.write("tasks/entities.jsonl", lines(ENTITIES))
    write(folder, topics() | entities(), output="one")
    write(folder, entities() | topics(), output="two")

    def contents(output: Path) -> dict[str, bytes]:
        return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}

    assert contents(folder.root / "one") == contents(folder.root / "two")
