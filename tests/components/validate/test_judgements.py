"""Judgements of a model that isn't trained here: probabilities in the order of the labels, or a readable message."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.validate.beside import covered, doubts
from components.validate.judgements import JUDGEMENTS, read_judgements, write_judgements

LABELS = ["差", "好", "中"]
BY_LABEL = {"file": "data/judged/llm.jsonl", "columns": {"label": "label"}}
BY_MAPPING = {"file": "data/judged/llm.jsonl", "columns": {"label": None, "probabilities": "p"}}


def lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read(folder: Any, judgements: dict[str, Any] | None) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Text -> probabilities, and what is told, beside 10 training rows 第0..第9 and a pool of 池0..池4."""
    folder.write_rows("train", [{"text": f"第{number}", "label": LABELS[number % 3]} for number in range(10)])
    folder.write_rows("validation", [{"text": "验", "label": "好"}])
    folder.write_rows("test", [{"text": "测", "label": "好"}])
    folder.write_rows("unlabelled", [{"text": f"池{number}"} for number in range(5)] + [{"text": "池0！"}])
    data = folder.data(labels=LABELS, judgements=judgements)
    with folder.facts(data) as database:
        told = read_judgements(database, data, folder.root, LABELS, folder.root)
        write_judgements(database, folder.root / "judgements")
    table = pq.read_table(folder.root / "judgements")
    assert table.schema.equals(JUDGEMENTS)
    found = table.to_pydict()
    assert found["text"] == sorted(found["text"])
    return dict(zip(found["text"], found["probabilities"], strict=True)), told or {}


def refused(folder: Any, rows: Sequence[Any], judgements: dict[str, Any]) -> str:
    folder.write("judged/llm.jsonl", lines(rows))
    with pytest.raises(UserError) as caught:
        read(folder, judgements)
    assert caught.value.kind == "data"
    assert not (folder.root / "judgements").exists()
    return caught.value.message


def test_a_label_stands_for_the_confidence_and_the_others_share_the_rest(folder: Any) -> None:
    folder.write("judged/llm.jsonl", lines([{"text": "第1", "label": "好"}, {"text": "池3", "label": "差"}]))
    found, told = read(folder, BY_LABEL | {"confidence": 0.7})
    assert found == {"第1": pytest.approx([0.15, 0.7, 0.15]), "池3": pytest.approx([0.7, 0.15, 0.15])}
    assert covered(told) == (
        "the 2 judgements of data/judged/llm.jsonl cover 1 of 10 training rows, 1 of 6 pool rows, "
        "0 of 1 validation rows"
    )
    assert list(doubts(told)) == []


def test_probabilities_are_put_in_the_order_of_the_labels(folder: Any) -> None:
    folder.write("judged/llm.jsonl", lines([{"text": "第1", "p": {"中": 0.5, "好": 0.3, "差": 0.2}}]))
    assert read(folder, BY_MAPPING)[0] == {"第1": pytest.approx([0.2, 0.3, 0.5])}


def test_json_lines_parquet_and_csv_give_the_same(folder: Any) -> None:
    rows: list[tuple[str, dict[str, float]]] = [("第1", {"好": 0.75, "差": 0.25}), ("池2", {"中": 1})]
    found = []
    for suffix in ("jsonl", "csv", "parquet", "map.parquet"):
        path = folder.write(f"judged/llm.{suffix}", "")
        if suffix == "jsonl":
            path.write_text(lines([{"text": text, "p": mapping} for text, mapping in rows]), encoding="utf-8")
        elif suffix == "csv":
            quoted = [(text, json.dumps(mapping, ensure_ascii=False).replace('"', '""')) for text, mapping in rows]
            path.write_text("text,p\n" + "".join(f'{text},"{mapping}"\n' for text, mapping in quoted), encoding="utf-8")
        else:
            kind = pa.map_(pa.string(), pa.float64()) if suffix == "map.parquet" else None
            mappings = [list(mapping.items()) if kind else mapping for _, mapping in rows]
            pq.write_table(pa.table({"text": [text for text, _ in rows], "p": pa.array(mappings, kind)}), path)
        found.append(read(folder, BY_MAPPING | {"file": f"data/judged/llm.{suffix}"})[0])
    assert found == [{"第1": [0.25, 0.75, 0.0], "池2": [0.0, 0.0, 1.0]}] * 4


def test_numbers_that_do_not_sum_to_1_are_scaled_and_told(folder: Any) -> None:
    weights = [{"好": 3, "差": 1}, {"好": 0.504, "差": 0.5}, {"好": 1e308, "差": 1e308}, {"好": 5e-324}]
    folder.write("judged/llm.jsonl", lines([{"text": f"第{row}", "p": each} for row, each in enumerate(weights)]))
    found, told = read(folder, BY_MAPPING)
    assert all(sum(each) == pytest.approx(1) for each in found.values())
    assert found["第0"] == [0.25, 0.75, 0.0]
    assert found["第2"] == [0.5, 0.5, 0.0]
    assert [line.split(" of ")[0] for line in doubts(told)] == ["3 rows"]


def test_judgements_of_one_text_are_averaged_whatever_their_order(folder: Any) -> None:
    rng = random.Random(3)
    said: list[dict[str, Any]] = [
        {"text": rng.choice(["第1", "第1！", " 第 1"]), "p": {name: rng.random() for name in LABELS}} for _ in range(40)
    ]
    folder.write("judged/llm.jsonl", lines(said))
    first, told = read(folder, BY_MAPPING)
    folder.write("judged/llm.jsonl", lines(rng.sample(said, len(said))))
    assert read(folder, BY_MAPPING)[0] == first
    shares = [[each["p"][name] / sum(each["p"].values()) for name in LABELS] for each in said]
    assert first == {"第1": pytest.approx([sum(column) / 40 for column in zip(*shares, strict=True)])}
    assert "1 texts are judged more than once" in "\n".join(doubts(told))


def test_a_judgement_covers_every_row_of_its_normalised_text_and_of_no_test_row(folder: Any) -> None:
    rows = [{"text": text, "label": "好"} for text in ("池0", "ＣＨ测", "测", "验")]
    folder.write("judged/llm.jsonl", lines(rows))
    found, told = read(folder, BY_LABEL)
    assert found.keys() == {"池0", "池0！", "验"}
    assert told["covered"] == {"train": 0, "unlabelled": 2, "validation": 1}
    assert "2 judged texts of data/judged/llm.jsonl are of no training, pool or validation row" in "\n".join(
        doubts(told)
    )


def test_rows_without_a_judgement_are_passed_over_and_counted(folder: Any) -> None:
    folder.write("judged/llm.jsonl", lines([{"text": "第1", "label": None}, {"text": "第2", "label": "好"}]))
    found, told = read(folder, BY_LABEL)
    assert found.keys() == {"第2"}
    assert "1 rows of data/judged/llm.jsonl hold no judgement" in "\n".join(doubts(told))


def test_without_judgements_there_is_one_shard_without_rows(folder: Any) -> None:
    assert read(folder, None) == ({}, {})
    assert [path.name for path in (folder.root / "judgements").iterdir()] == ["part-00000.parquet"]


def test_an_unknown_label_is_named_with_the_row_and_what_was_meant(folder: Any) -> None:
    rows = [{"text": "第1", "label": "好"}, {"text": "第2", "label": "好的"}, {"text": "第3", "label": "坏"}]
    message = refused(folder, rows, BY_LABEL)
    assert message.splitlines()[1:] == [
        "  2 rows with an unknown label: row 1 ('好的'; did you mean '好'?), row 2 ('坏'; valid: 差, 好, 中)"
    ]
    assert "data/judged/llm.jsonl (data.judgements.file)" in message


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        ({"好": -0.1, "差": 1.1}, "no number of at least 0: row 1 ('好': -0.1)"),
        ({"好": float("nan")}, "no number of at least 0: row 1 ('好': nan)"),
        ({"好": float("inf")}, "no number of at least 0: row 1 ('好': inf)"),
        ({"好": "0.5"}, "no number of at least 0: row 1 ('好': '0.5')"),
        ({"好": True}, "no number of at least 0: row 1 ('好': True)"),
        ({"好": 10**400}, "no number of at least 0: row 1"),
        ({"好": 0.0, "差": 0}, "sum to 0: row 1"),
        ({}, "sum to 0: row 1"),
        ({"好评": 1.0}, "an unknown label: row 1 ('好评'; did you mean '好'?)"),
        ([0.5, 0.5], "without a mapping of labels to numbers: row 1 ([0.5, 0.5])"),
        ("好", "without a mapping of labels to numbers: row 1 ('好')"),
    ],
)
def test_bad_probabilities_are_named_by_row(folder: Any, probabilities: Any, words: str) -> None:
    rows = [{"text": "第1", "p": {"好": 1}}, {"text": "第2", "p": probabilities}]
    assert words in refused(folder, rows, BY_MAPPING)


def test_rows_without_a_text_are_refused(folder: Any) -> None:
    assert "1 row without a text: row 0" in refused(folder, [{"text": " ", "label": "好"}], BY_LABEL)


def test_validation_rows_are_judged_too_to_calibrate_by_and_test_rows_are_not(folder: Any) -> None:
    folder.write("judged/llm.jsonl", lines([{"text": text, "label": "好"} for text in ("第1", "验", "测")]))
    found, _ = read(folder, BY_LABEL)
    assert found.keys() == {"第1", "验"}
