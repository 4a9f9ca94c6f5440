"""Reading files of every format, and one readable message for every fault of a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.params.data import Data
from components.validate.formats import count_rows, values
from components.validate.reading import check_files, read_rows

TEXTS = ['他说："很好用，推荐！"', "good\tor, bad", "第一行\n第二行", "é", "plain"]
LABELS = ["positive", "negative", "positive", "negative", "positive"]


def read(data: Data, source: str = "train") -> dict[str, list[str | None]]:
    values: dict[str, list[str | None]] = {"text": [], "label": [], "group": [], "document": []}
    for rows in read_rows(data, source):
        for role in values:
            values[role] += rows.values[role]
    return values


def fails(data: Data, source: str = "train") -> UserError:
    with pytest.raises(UserError) as caught:
        read(data, source)
    assert caught.value.kind == "data"
    assert caught.value.remedy
    return caught.value


def of(file: str, **changes: Any) -> Data:
    return Data.model_validate(
        {
            "train": f"data/{file}",
            "columns": {"text": "text", "label": "label", **changes.pop("columns", {})},
            **changes,
        }
    )


def test_csv_keeps_quotes_commas_and_line_ends_in_texts(folder: Any) -> None:
    quoted = [f'{label},"{text.replace(chr(34), chr(34) * 2)}"' for text, label in zip(TEXTS, LABELS, strict=True)]
    folder.write("train.csv", "\ufefflabel,text\r\n" + "\r\n".join(quoted) + "\r\n\r\n")
    assert read(of("train.csv")) == {
        "text": TEXTS,
        "label": LABELS,
        "group": [None] * 5,
        "document": [None] * 5,
    }


def test_tsv_takes_fields_as_they_stand_and_undoes_whole_quoting(folder: Any) -> None:
    rows = ['"很好""用"""\t1', '"quoted" start\t0', 'say "hi\t1', '"\t0']
    folder.write("train.tsv", "text\tlabel\n" + "\n".join(rows))
    assert read(of("train.tsv"))["text"] == ['很好"用"', '"quoted" start', 'say "hi', '"']


def test_json_lines_give_numbers_booleans_and_nulls_as_text(folder: Any) -> None:
    folder.write("train.jsonl", '{"text": 5, "label": true}\n\n{"label": 0}\n{"text": null, "label": 1.0}\n')
    assert read(of("train.jsonl")) == {
        "text": ["5", None, None],
        "label": ["true", "0", "1.0"],
        "group": [None] * 3,
        "document": [None] * 3,
    }


def test_a_lone_surrogate_in_json_becomes_the_replacement_character(folder: Any) -> None:
    folder.write("train.jsonl", '{"text": "好\\ud83d", "label": "a"}\n')
    assert read(of("train.jsonl"))["text"] == ["好\ufffd"]


def test_parquet_gives_every_type_as_text(folder: Any) -> None:
    table = pa.table(
        {
            "text": pa.array(TEXTS[:3]).dictionary_encode(),
            "label": [True, False, None],
            "g": [1, 2, 3],
            "d": pa.array(["x", None, "z"], pa.large_string()),
        }
    )
    pq.write_table(table, folder.root / "data/train.parquet")
    assert read(of("train.parquet", columns={"group": "g", "document": "d"})) == {
        "text": TEXTS[:3],
        "label": ["true", "false", None],
        "group": ["1", "2", "3"],
        "document": ["x", None, "z"],
    }


def test_shards_are_read_by_name_and_rows_counted_on(folder: Any) -> None:
    for name, text in {"b.csv": "二", "a.csv": "一", "c.csv": "三"}.items():
        folder.write(f"train/{name}", f"text,label\n{text},x\n")
    folder.write("train/.hidden", "x")
    batches = list(read_rows(of("train"), "train"))
    assert [rows.values["text"] for rows in batches] == [["一"], ["二"], ["三"]]
    assert [rows.first for rows in batches] == [0, 1, 2]


def test_an_unlabelled_file_needs_only_the_text(folder: Any) -> None:
    folder.write("train.csv", "text,label,g\na,x,1\n")
    folder.write("pool.csv", "text\n好\n")
    data = of("train.csv", unlabelled="data/pool.csv", columns={"group": "g"})
    check_files(data)
    assert read(data, "unlabelled") == {"text": ["好"], "label": [None], "group": [None], "document": [None]}


def test_an_index_column_without_a_name_is_not_taken_for_a_role(folder: Any) -> None:
    folder.write("train.csv", ",text,label\n7,好,x\n")
    assert read(of("train.csv"))["group"] == [None]


@pytest.mark.parametrize("check", [check_files, read], ids=["check", "read"])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.csv", b"", ["train.csv is empty", "0 bytes"]),
        ("train.csv", b"text,label\n", ["holds no rows"]),
        ("train.jsonl", b"\n\n", ["no column 'text'"]),
        ("train.csv", b"Text,lable\na,b\n", ["no column 'text'", "'Text', 'lable'", "Did you mean 'Text'?"]),
        ("train.jsonl", b'{"text": "a", "Lable": 1}\n', ["no column 'label'", "Did you mean 'Lable'?"]),
        ("train.csv", b"text,text,label\na,b,c\n", ["2 columns 'text'"]),
        ("train.csv", "文本,label\n好,x\n".encode("gb18030"), ["not UTF-8", "line 1"]),
        ("train.csv", "text,label\n好,x\n".encode("utf-16"), ["not UTF-8", "line 1, byte 0"]),
        ("train.xlsx", b"PK", ["extension", ".csv, .tsv, .jsonl", "'.xlsx'"]),
        ("train.json", b"[]", ["expected questions as in SQuAD", "it begins with []"]),
        ("train.parquet", b"PAR1 not really", ["not a sound Parquet file"]),
        ("train.jsonl", b'[{"text": 1}]\n', ["line 1", "expected a JSON object"]),
    ],
)
def test_what_the_head_of_a_file_shows_is_found_before_and_while_reading(
    folder: Any, check: Any, name: str, content: bytes, words: list[str]
) -> None:
    folder.write(name, content)
    with pytest.raises(UserError) as caught:
        check(of(name))
    assert caught.value.kind == "data"
    assert all(word in caught.value.message for word in [*words, f"data/{name}"]), caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.csv", "text,label\n好,x\n坏".encode() + b"\xff,x\n", ["line 3, byte 20", "0xff"]),
        ("train.tsv", b"text\tlabel\na\tx\n\xe9\tx\n", ["line 3, byte 15", "0xe9"]),
        ("train.jsonl", b'{"text":"a","label":"x"}\n{"text":"\xc3","label":"x"}\n', ["line 2, byte 34"]),
        ("train.csv", "text,label\n好,x\n好,用,x\n".encode(), ["line 3", "expected 2 fields", "got 3"]),
        ("train.csv", b'text,label\na,x\n"open,x\nb,x\n', ["line 3", "malformed CSV"]),
        ("train.csv", b'text,label\n"a"b,x\n', ["line 2", "malformed CSV"]),
        ("train.tsv", b"text\tlabel\nonly\n", ["line 2", "expected 2 fields", "got 1"]),
        ("train.jsonl", b'{"text":"a","label":"x"}\n{"text": "b"\n', ["line 2", "malformed JSON"]),
        ("train.jsonl", b'{"text":"a","label":"x"}\n17\n', ["line 2", "got 17"]),
    ],
)
def test_a_bad_row_is_named_by_its_line(folder: Any, name: str, content: bytes, words: list[str]) -> None:
    folder.write(name, content)
    message = fails(of(name)).message
    assert all(word in message for word in [*words, f"data/{name}"]), message


def test_text_in_parquet_that_is_not_utf8_is_named(folder: Any) -> None:
    texts = pa.array([b"\xe5\xa5\xbd", b"\xff"], pa.binary())
    pq.write_table(pa.table({"text": texts, "label": ["a", "b"]}), folder.root / "data/train.parquet")
    assert "not UTF-8: rows 0 to 1" in fails(of("train.parquet")).message


@pytest.mark.parametrize("damage", ["cut short", "overwritten"])
def test_a_damaged_parquet_file_is_named(folder: Any, damage: str) -> None:
    table = pa.table({"text": [f"第{number}行" for number in range(5000)], "label": ["a", "b"] * 2500})
    path = folder.root / "data/train.parquet"
    pq.write_table(table, path)
    sound = path.read_bytes()
    half = len(sound) // 2
    path.write_bytes(sound[:half] if damage == "cut short" else bytes(half) + sound[half:])
    error = fails(of("train.parquet"))
    assert "data/train.parquet is not a sound Parquet file" in error.message
    assert "copy or write it again" in error.remedy
    with pytest.raises(UserError, match=r"data/train\.parquet is not a sound Parquet file"):
        count_rows(Path("data/train.parquet"))


def test_a_missing_file_is_named_with_what_is_there(folder: Any) -> None:
    folder.write("训练.csv", "text,label\n")
    with pytest.raises(UserError, match=r"data/train\.csv does not exist; data holds 训练\.csv"):
        check_files(of("train.csv"))


def test_a_folder_of_mixed_formats_or_without_files_is_refused(folder: Any) -> None:
    folder.write("train/a.csv", "text,label\n好,x\n")
    folder.write("train/b.tsv", "text\tlabel\n好\tx\n")
    with pytest.raises(UserError, match=r"mixes formats: CSV \(a\.csv\) and TSV \(b\.tsv\)"):
        check_files(of("train"))
    (folder.root / "data/empty").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        check_files(of("empty"))


def test_a_named_group_or_document_column_must_be_in_labelled_files(folder: Any) -> None:
    folder.write("train.csv", "text,label\n好,x\n")
    with pytest.raises(UserError, match=r"no column 'shop' \(data\.columns\.group\)"):
        check_files(of("train.csv", columns={"group": "shop"}))


TOPICS = {"type": "text-classification", "train": "data/topics.csv"}
ENTITIES = {"type": "token-classification", "train": "data/entities.jsonl"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": {"topics": TOPICS | {"train": "data/none.csv"}}}, ["data/none.csv does not exist"]),
        ({"tasks": {"ner": ENTITIES | {"validation": "data/none.jsonl"}}}, ["data/none.jsonl does not exist"]),
        (
            {"tasks": {"topics": TOPICS | {"columns": {"label": "topik"}}}},
            ["no column 'topik' (data.tasks.topics.columns.label)", "Did you mean 'topic'?"],
        ),
        ({"tasks": {"ner": ENTITIES | {"columns": {"tags": "ner"}}}}, ["(data.tasks.ner.columns.tags)"]),
        ({"tasks": {"ner": ENTITIES | {"train": "data/topics.csv"}}}, ["(data.tasks.ner.train)", "CSV file has no"]),
        ({"judgements": {"file": "data/none.jsonl"}}, ["data/none.jsonl does not exist"]),
        ({"judgements": {"file": "data/llm.jsonl"}}, ["'label' (data.judgements.columns.label)"]),
        ({"judgements": {"file": "data/empty.csv"}}, ["data/empty.csv is empty"]),
    ],
)
def test_files_and_columns_of_tasks_and_judgements_are_checked_too(
    folder: Any, changes: dict[str, Any], words: list[str]
) -> None:
    for name, content in {
        "train.csv": "text,label\n好,x\n",
        "topics.csv": "text,topic\n好,x\n",
        "entities.jsonl": '{"tokens": ["a"], "tags": ["O"]}\n',
        "llm.jsonl": '{"text": "好", "p": {"x": 1}}\n',
        "empty.csv": "text,label\n",
    }.items():
        folder.write(name, content)
    sound = {
        "tasks": {"topics": TOPICS | {"columns": {"label": "topic"}}, "ner": ENTITIES},
        "judgements": {"file": "data/llm.jsonl", "columns": {"label": None, "probabilities": "p"}},
    }
    check_files(of("train.csv", **sound))
    with pytest.raises(UserError) as caught:
        check_files(of("train.csv", **changes))
    assert caught.value.kind == "data"
    assert all(word in caught.value.message for word in words), caught.value.message


def test_values_stay_what_they_are_where_the_format_has_types(folder: Any) -> None:
    row = {"list": ["好", 5, "\ud83d"], "mapping": {"a": 0.5}, "number": 3, "nothing": None}
    folder.write("rows.jsonl", json.dumps(row) + "\n")
    pq.write_table(pa.table({"list": [[b"\xe5\xa5\xbd"]], "number": [float("nan")]}), folder.root / "data/rows.parquet")
    folder.write("rows.csv", "list,number\n[1],\n")
    kept = row | {"list": ["好", 5, "\ufffd"]}
    assert list(values(Path("data/rows.jsonl"), list(row))) == [list(kept.values())]
    assert list(values(Path("data/rows.parquet"), ["list", "number"])) == [[["好"], None]]
    assert list(values(Path("data/rows.csv"), ["list", "number"])) == [["[1]", None]]


def test_checking_a_file_reads_no_further_than_its_head(folder: Any) -> None:
    head = json.dumps({"text": "好", "label": "x"}) + "\n"
    folder.write("train.jsonl", head * 2000 + "broken\n")
    check_files(of("train.jsonl"))
    assert "line 2001" in fails(of("train.jsonl")).message


def test_checking_text_files_imports_nothing_heavy(folder: Any) -> None:
    code = (
        "import sys, components.validate.reading, components.validate.tokens; "
        "print([name for name in ('duckdb', 'pyarrow', 'pandas', 'numpy', 'transformers') if name in sys.modules])"
    )
    root = Path(__file__).parents[3]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
