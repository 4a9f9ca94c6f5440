"""The validate stage as a whole, with Great Expectations: what passes, and what each rule stops."""

from __future__ import annotations

import functools
import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.params.data import Rules, Validate
from components.validate.database import connect
from components.validate.rules import rule_settings
from components.validate.stage import run

COLUMNS = {"text": "text", "label": "label", "group": "group", "document": "document"}
SIZES = {"train": 80, "validation": 50, "test": 50, "unlabelled": 10}
DEFAULTS = Rules.model_validate({})
Rows = dict[str, list[dict[str, Any]]]


def sound_rows() -> Rows:
    """Four files that keep every rule, half of each class."""
    return {
        split: [
            {
                "text": f"{split} {number}号手机，{'很好用' if number % 2 else '差'}！",
                "label": "好" if number % 2 else "差",
                "group": f"组{number % 3}",
                "document": f"{split}{number // 4}",
            }
            for number in range(size)
        ]
        for split, size in SIZES.items()
    }


def validate(folder: Any, base_model: Path, rows: Rows, name: str = "validate", **changes: Any) -> Path:
    for split, found in rows.items():
        folder.write_rows(split, found)
    output: Path = folder.root / "artifacts" / f"{name}.partial"
    output.mkdir(parents=True)
    rules = Rules.model_validate(changes.pop("rules", {}))
    data = folder.data(**{"columns": COLUMNS, "max_length": 40, **changes})
    run(data_folder=Path("data"), base_model=base_model, data=data, settings=Validate(rules=rules), output=output)
    return output


def verdict(folder: Any, rule: str) -> dict[str, Any]:
    verdicts = json.loads((folder.root / "reports/gate/gate.json").read_text("utf-8"))
    found: dict[str, Any] = next(found for found in verdicts["rules"] if found["rule"] == rule)
    return found


def contents(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}


def test_sound_data_passes_and_becomes_canonical_splits(
    folder: Any, base_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = validate(folder, base_model, sound_rows())
    assert sorted(path.name for path in output.iterdir()) == [
        "facts", "folders.json", "gate.json", "judgements", "schema.json", "tasks", "test", "train", "unlabelled",
        "validation",
    ]  # fmt: skip
    schema = json.loads((output / "schema.json").read_text("utf-8"))
    assert schema == {
        "task": "text-classification",
        "labels": ["好", "差"],
        "groups": ["组0", "组1", "组2"],
        "rows": SIZES,
    }
    facts = pq.read_table(output / "facts").to_pydict()
    assert facts["tokens"][1] == len(["[CLS]", "train", "1", *"号手机，很好用！", "[SEP]"])
    gate = json.loads((output / "gate.json").read_text("utf-8"))
    assert gate["passed"]
    assert {found["rule"]: found["passed"] for found in gate["rules"]} == {
        **dict.fromkeys(rule_settings(DEFAULTS), True),
        "shared_texts": None,  # which is about pairs
    }
    report = folder.root / "reports/gate"
    assert (report / "gate.json").read_bytes() == (output / "gate.json").read_bytes()
    assert (report / "data_docs/index.html").is_file()
    assert 'href="data_docs/index.html"' in (report / "report.html").read_text("utf-8")
    assert "warning" not in capsys.readouterr().out
    assert not logging.getLogger("py.warnings").handlers


def test_the_same_input_gives_the_same_bytes_whatever_the_threads(
    folder: Any, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sound_rows()
    training = [row | {"document": None} for row in (*rows["train"] * 4, *rows["validation"])]
    for number, row in enumerate(training):
        row["text"] = f"{number}{row['text']}"
    rows = {"train": random.Random(3).sample(training, len(training)), "unlabelled": rows["unlabelled"]}
    relaxed = {"rows_per_class": {"severity": "error", "min_rows": 10}}
    first = contents(validate(folder, base_model, rows, "first", rules=relaxed))
    monkeypatch.setattr("components.validate.stage.connect", functools.partial(connect, threads=1))
    assert first == contents(validate(folder, base_model, rows, "second", rules=relaxed))
    assert all(str(folder.root).encode() not in content for content in first.values())


def change(split: str, number: int, **values: Any) -> Callable[[Rows], None]:
    def make(rows: Rows) -> None:
        rows[split][number] |= values

    return make


def rare_class(rows: Rows) -> None:
    for split in ("train", "validation", "test"):
        rows[split] += [{"text": f"{split}一般{n}", "label": "中", "group": "组0"} for n in range(2)]


def many(split: str, count: int, **values: Any) -> Callable[[Rows], None]:
    def make(rows: Rows) -> None:
        for number in range(count):
            rows[split][number] |= {name: value.format(number) for name, value in values.items()}

    return make


FAULTS: dict[str, tuple[Callable[[Rows], None], list[str]]] = {
    "missing_text": (change("train", 3, text=None), ["1 of 82", "train without a text", "row 3 of data/train.jsonl"]),
    "missing_label": (change("test", 4, label=None), ["1 of 52", "test without a label", "row 4 of data/test.jsonl"]),
    "blank_text": (change("unlabelled", 2, text=" 　\n"), ["unlabelled whose text is blank", "row 2"]),
    "known_label": (change("test", 6, label="良好"), ["1 of 51", "'良好'", "row 6 of data/test.jsonl", "'好', '差'"]),
    "encoding": (change("train", 5, text="æˆ‘å¾ˆå¥½"), ["1 of 82", "wrong decoding", "row 5"]),
    "truncated": (change("validation", 1, text="好" * 39), ["validation longer than 40 tokens", "row 1"]),
    "duplicates": (change("train", 9, text="TRAIN8号手机 差"), ["row 9", "like row 8 of data/train.jsonl"]),
    "conflicting_labels": (change("test", 9, text="test8号手机差"), ["2 of 52", "row 8", "like row 9"]),
    "leakage": (
        change("train", 7, text="ｔｅｓｔ　5号手机很好用"),
        ["1 of 82", "stands in test", "row 7", "like row 5"],
    ),
    "shared_documents": (change("unlabelled", 1, document="validation2"), ["document also has rows in validation"]),
    "rows_per_class": (rare_class, ["'中' has 2 rows in train", "'中' has 2 rows in test", "at least 20"]),
    "class_balance": (rare_class, ["'中' has 2 rows, 2.4% of train", "at least 10.0%"]),
}


def strict() -> dict[str, Any]:
    """Every rule at severity error and without leeway for shares."""
    settings = {name: rule.model_dump() | {"severity": "error"} for name, rule in rule_settings(DEFAULTS).items()}
    return {name: rule | ({"max_share": 0.0} if "max_share" in rule else {}) for name, rule in settings.items()}


def test_each_rule_names_what_breaks_it(folder: Any, base_model: Path) -> None:
    rows = sound_rows()
    for fault in dict.fromkeys(fault for fault, _ in FAULTS.values()):
        fault(rows)
    with pytest.raises(UserError) as caught:
        validate(folder, base_model, rows, rules=strict(), labels=["好", "差", "中"])
    assert caught.value.kind == "gate"
    assert "reports/gate/report.html" in caught.value.remedy
    found = caught.value.message.splitlines()
    assert found[0] == "The data gate stopped the run; the data breaks 12 rules:"
    for rule, (_, words) in FAULTS.items():
        said = "\n".join(line for line in found if line.startswith(f"  {rule}: "))
        assert all(word in said for word in words), (rule, caught.value.message)
        assert verdict(folder, rule)["passed"] is False
    assert [path.name for path in (folder.root / "artifacts/validate.partial").iterdir()] == []
    assert "The data gate stopped the run" in (folder.root / "reports/gate/report.html").read_text("utf-8")


def test_a_split_without_rows_breaks_the_schema_rule(folder: Any, base_model: Path) -> None:
    rows = {"train": sound_rows()["train"][:2]}
    with pytest.raises(UserError, match="schema: validation has no rows"):
        validate(folder, base_model, rows)


def test_several_faults_are_named_together(folder: Any, base_model: Path) -> None:
    rows = sound_rows()
    for rule in ("missing_text", "known_label", "leakage"):
        FAULTS[rule][0](rows)
    with pytest.raises(UserError) as caught:
        validate(folder, base_model, rows, labels=["好", "差"])
    assert caught.value.message.startswith("The data gate stopped the run; the data breaks 3 rules:")


def test_warnings_are_printed_and_the_stage_goes_on(
    folder: Any, base_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sound_rows()
    FAULTS["leakage"][0](rows)
    FAULTS["known_label"][0](rows)
    warn = {"severity": "warning", "max_share": 0.0}
    output = validate(folder, base_model, rows, rules={"leakage": warn, "known_label": warn}, labels=["好", "差"])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1] for line in printed if line.startswith("warning")] == [" known_label", " leakage"]
    assert json.loads((output / "schema.json").read_text("utf-8"))["rows"]["test"] == SIZES["test"] - 1


def test_examples_in_the_report_are_shortened_and_at_most_ten(folder: Any, base_model: Path) -> None:
    rows = sound_rows()
    many("train", 30, text="<script>{}" + "好" * 300)(rows)
    with pytest.raises(UserError):
        validate(folder, base_model, rows, rules={"truncated": {"severity": "error", "max_share": 0.0}})
    examples = verdict(folder, "truncated")["examples"]
    assert [example["row"] for example in examples] == list(range(10))
    assert all(len(example["text"]) == 161 for example in examples)
    assert "<script" not in (folder.root / "reports/gate/report.html").read_text("utf-8")


def test_bad_files_and_models_are_named_before_anything_is_read(folder: Any, base_model: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist") as caught:
        validate(folder, Path("data/nowhere"), sound_rows())
    assert caught.value.kind == "parameters"
    with pytest.raises(UserError, match="takes at most 64 tokens"):
        validate(folder, base_model, sound_rows(), "long", max_length=65)
    with pytest.raises(UserError, match=r"data/nowhere does not exist \(data\.models\.other\)"):
        validate(folder, base_model, sound_rows(), "other", models={"other": "data/nowhere"})


def beside(folder: Any, base_model: Path) -> dict[str, Any]:
    """Files of tasks, judgements and another model, and the keys that name them."""
    topics = [{"text": f"第{number}篇<b>", "label": "<i>天气" if number % 2 else "手机"} for number in range(20)]
    entities = [{"tokens": ["在", f"{number}号"], "tags": ["O", "地"]} for number in range(20)]
    judged = [{"text": f"unlabelled {number}号手机，很好用！", "label": "好"} for number in range(1, 10, 2)]
    files: dict[str, list[Any]] = {"topics": topics, "entities": entities, "llm": judged}
    for name, rows in files.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        folder.write(f"beside/{name}.jsonl", lines)
    shutil.copytree(base_model, folder.root / "data/models/other", dirs_exist_ok=True)
    return {
        "tasks": {
            "topics": {"type": "text-classification", "train": "data/beside/topics.jsonl"},
            "entities": {"type": "token-classification", "train": "data/beside/entities.jsonl"},
        },
        "judgements": {"file": "data/beside/llm.jsonl"},
        "models": {"other": "data/models/other"},
    }


def test_tasks_judgements_and_models_are_written_beside_the_splits_and_told(
    folder: Any, base_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = validate(folder, base_model, sound_rows(), **beside(folder, base_model))
    kinds = json.loads((output / "tasks/tasks.json").read_text("utf-8"))
    assert kinds["topics"] == {"type": "text-classification", "labels": sorted(["<i>天气", "手机"])}
    assert kinds["entities"] == {"type": "token-classification", "labels": ["O", "地"]}
    for name in kinds:
        sizes = [pq.read_table(output / "tasks" / name / split).num_rows for split in ("train", "validation")]
        assert sizes == [18, 2]
    judged = pq.read_table(output / "judgements").to_pydict()
    assert judged["probabilities"] == [pytest.approx([0.9, 0.1])] * 5
    assert list(json.loads((output / "folders.json").read_text("utf-8"))) == ["other"]
    assert not list(output.glob("tmp*"))
    printed = capsys.readouterr().out
    assert "task topics: 2 labels; rows: train 18, validation 2" in printed
    assert "cover 0 of 80 training rows, 5 of 10 pool rows, 0 of 50 validation rows" in printed
    page = (folder.root / "reports/gate/report.html").read_text("utf-8")
    assert all(words in page for words in ("data/beside/entities.jsonl", "cover 0 of 80", "data/models/other"))
    assert "&lt;i&gt;天气" in page
    assert "<i>" not in page


def test_pool_rows_that_nearly_repeat_a_test_row_are_left_out_and_told(
    folder: Any, base_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sound_rows()
    rows["test"][3]["text"] = "这部手机真的很好用，屏幕亮，电池也耐用，我非常满意，推荐给大家"
    rows["unlabelled"][7]["text"] = "这部手机真的很好用，屏幕亮，电池也耐用，我非常满意，推荐给大家！<b>"
    output = validate(folder, base_model, rows)
    assert "left out 1 of 10 pool rows" in capsys.readouterr().out
    assert 7 not in pq.read_table(output / "unlabelled").column("row").to_pylist()
    assert pq.read_table(output / "unlabelled").num_rows == SIZES["unlabelled"] - 1
    near = json.loads((output / "gate.json").read_text("utf-8"))["summary"]["near"]
    assert (near["rows"], near["of"], near["examples"][0]["row"], near["examples"][0]["like"]["row"]) == (1, 10, 7, 3)
    page = (folder.root / "reports/gate/report.html").read_text("utf-8")
    assert "left out 1 of 10 pool rows that nearly repeat test rows" in page
    assert "<b>" not in page.split("Near-duplicates")[1].split("<h2>")[0]
    switched_off = validate(folder, base_model, rows, "off", near_duplicate=None)
    assert pq.read_table(switched_off / "unlabelled").num_rows == SIZES["unlabelled"]


def test_a_task_that_cannot_be_used_leaves_nothing_behind(folder: Any, base_model: Path) -> None:
    keys = beside(folder, base_model)
    folder.write("beside/entities.jsonl", '{"tokens": ["a"], "tags": []}\n')
    with pytest.raises(UserError, match="not as many tags as tokens: row 0"):
        validate(folder, base_model, sound_rows(), **keys)
    assert list((folder.root / "artifacts/validate.partial").iterdir()) == []


def test_training_texts_of_a_task_that_stand_in_the_test_are_warned_of(
    folder: Any, base_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, rows = beside(folder, base_model), sound_rows()
    folder.write_rows("beside/topics", [{"text": row["text"], "label": row["label"]} for row in rows["test"]])
    validate(folder, base_model, rows, **keys)
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert warned == ["warning: 46 of 46 training rows of the task 'topics' have the text of a test row"]


def test_labels_and_columns_are_escaped_in_the_data_docs_too(folder: Any, base_model: Path) -> None:
    rows = sound_rows()
    for row in rows["test"]:
        row["<script>c"] = "x"
    rows["test"][5]["label"] = "<script>标签"
    with pytest.raises(UserError, match=r"'<script>标签' \(1\)"):
        validate(folder, base_model, rows, labels=["好", "差", "<script>类"])
    pages = [path.read_text("utf-8") for path in (folder.root / "reports/gate").rglob("*.html")]
    assert any("&lt;script&gt;标签" in page for page in pages)
    assert not any("<script>" + data in page for page in pages for data in ("c", "标签", "类"))
    assert "the class '<script>类' has 0 rows in test" in verdict(folder, "rows_per_class")["findings"][-1]["says"]


def test_many_small_classes_are_one_message(folder: Any, base_model: Path) -> None:
    rows = sound_rows()
    for number, row in enumerate(rows["train"][:15]):
        row["label"] = f"罕见{number:02}"
    with pytest.raises(UserError) as caught:
        validate(folder, base_model, rows)
    (line,) = [line for line in caught.value.message.splitlines() if "rows_per_class" in line and "train" in line]
    assert "15 classes of train with fewer than" in line
    assert "'罕见00' (1), " in line
    assert line.endswith(", ...")
