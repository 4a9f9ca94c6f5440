"""Rows of two texts at the data gate: both count, and neither may stand in a pair of the test rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.ml.tasks.table import TASKS
from components.params.data import Data, Validate
from components.validate.facts import write_splits
from components.validate.judgements import read_judgements, write_judgements
from components.validate.stage import run

COLUMNS = {"text": "premise", "text_pair": "hypothesis", "label": "label"}


def pair(premise: str | None, hypothesis: str | None, label: str = "yes") -> dict[str, Any]:
    return {"premise": premise, "hypothesis": hypothesis, "label": label}


@pytest.fixture
def paired(folder: Any) -> Any:
    """Training rows with every fault, and clean test and validation rows."""
    rows = [
        pair("一只猫", "一只动物"),
        pair("一只猫！", "一只动物。"),  # 1 repeats 0, but for punctuation
        pair("一只动物", "一只猫", "no"),  # 2 is 0 the other way round
        pair("a cat", None),
        pair(None, "an animal"),
        pair("a dog", "  "),
        pair("in the test", "new here", "no"),  # 6 shares its first text with test 0
        pair("new too", "Also in the TEST", "no"),  # 7 its second text with the first one of test 1
        pair("caf\ufffd", "fine", "no"),
        pair("held out", "as a whole", "no"),  # 9 is validation 0
    ]
    folder.write_rows("train", rows)
    folder.write_rows("validation", [pair("held out", "as a whole", "no"), pair("v", "w")])
    folder.write_rows("test", [pair("in the test", "and more"), pair("also in the test", "and less", "no")])
    return folder


def flagged(database: Any, column: str) -> list[int]:
    query = f"SELECT row FROM facts WHERE split = 'train' AND {column} ORDER BY row"
    return [row for (row,) in database.execute(query).fetchall()]


@pytest.mark.parametrize(
    ("column", "rows"),
    [
        ("missing_text", [3, 4]),
        ("blank", [5]),
        ("damaged", [8]),
        ("duplicate", [1]),
        ("duplicate_exact", []),
        ("conflicting", []),
        ("text_in_test", [6, 7]),
        ("text_in_validation", [9]),
        ("stands_in_validation", [9]),
        ("stands_in_test", []),
    ],
)
def test_facts_are_about_both_texts(paired: Any, column: str, rows: list[int]) -> None:
    with paired.facts(paired.data(columns=COLUMNS), max_length=100) as database:
        assert flagged(database, column) == rows


def test_lengths_are_those_of_both_texts(paired: Any) -> None:
    with paired.facts(paired.data(columns=COLUMNS)) as database:
        found = database.execute("SELECT characters FROM facts WHERE split = 'train' AND row = 0").fetchall()
    assert found == [(7,)]


def test_both_texts_are_written_beside_each_other(paired: Any, tmp_path: Path) -> None:
    with paired.facts(paired.data(columns=COLUMNS)) as database:
        write_splits(database, TASKS["text-classification"], ["no", "yes"], tmp_path, paired=True)
    table = pq.read_table(tmp_path / "test").to_pydict()
    assert list(table) == ["row", "text", "text_pair", "label", "group", "document"]
    assert next(zip(table["text"], table["text_pair"], strict=True)) == ("in the test", "and more")


def test_a_pool_without_second_texts_is_refused(paired: Any) -> None:
    from components.errors import UserError
    from components.validate.reading import check_files

    paired.write_rows("unlabelled", [{"premise": "alone"}])
    with pytest.raises(UserError, match="has no column 'hypothesis'") as caught:
        check_files(paired.data(columns=COLUMNS), paired.root)
    assert "data.columns" in caught.value.remedy


def test_the_gate_warns_of_texts_that_both_sides_know(folder: Any, tiny_encoder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder.root)
    for split, count in (("train", 60), ("validation", 20), ("test", 20)):
        rows = [pair(f"{split} 前 {n}", f"{split} 后 {n}", ["no", "yes"][n % 2]) for n in range(count)]
        folder.write_rows(split, rows if split != "train" else [*rows, pair("test 前 3", "neu", "no")])
    output = folder.root / "out"
    output.mkdir()
    rules = {"rules": {"rows_per_class": {"severity": "error", "min_rows": 5}}}
    data = folder.data(columns=COLUMNS, max_length=32)
    settings = Validate.model_validate(rules)
    run(data_folder=folder.root / "data", base_model=tiny_encoder, data=data, settings=settings, output=output)
    import json

    found = {rule["rule"]: rule for rule in json.loads((output / "gate.json").read_text())["rules"]}
    assert found["shared_texts"]["passed"] is False
    (example,) = found["shared_texts"]["examples"]
    assert (example["row"], example["text"]) == (60, "test 前 3 ⟷ neu")
    assert found["leakage"]["passed"] is True
    assert pq.read_table(output / "train").num_rows == 61


def test_judgements_of_pairs_are_found_by_both_texts(paired: Any) -> None:
    told = [{"premise": "一只猫", "hypothesis": "一只动物", "said": "yes"}]
    told.append({"premise": "一只动物", "hypothesis": "一只猫", "said": "no"})
    paired.write_rows("judged", told)
    names = {"file": "data/judged.jsonl", "columns": {"text": "premise", "text_pair": "hypothesis", "label": "said"}}
    given = {split: f"data/{split}.jsonl" for split in ("train", "validation", "test")}
    data = Data.model_validate({"columns": COLUMNS, **given, "judgements": names})
    with paired.facts(data, max_length=100) as database:
        read_judgements(database, data, paired.root, ["no", "yes"], paired.root)
        write_judgements(database, paired.root / "judgements", paired=True)
    found = pq.read_table(paired.root / "judgements").to_pylist()
    best = {(row["text"], row["text_pair"]): row["probabilities"].index(max(row["probabilities"])) for row in found}
    assert best == {("一只猫", "一只动物"): 1, ("一只猫！", "一只动物。"): 1, ("一只动物", "一只猫"): 0}


def test_judgements_must_be_of_pairs_where_rows_are() -> None:
    judged = {"file": "data/judged.jsonl"}
    with pytest.raises(ValidationError, match=r"judgements\.columns\.text_pair both to name a column"):
        Data.model_validate({"train": "data/train.jsonl", "columns": COLUMNS, "judgements": judged})
