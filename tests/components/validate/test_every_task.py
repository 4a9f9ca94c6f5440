"""Each kind of task through the whole stage: what is written of sound rows, and what is said of bad ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Example
from components.ml.tasks.text_classification import TextClassification
from components.params.data import Data, Validate
from components.validate.stage import run

Row = dict[str, Any]
LENIENT = {"rows_per_class": {"severity": "error", "min_rows": 2}}
WORDS = ("很好用", "差", "good", "bad")


def sentence(split: str, number: int) -> str:
    return f"{split} {number}号手机，{WORDS[number % 4]}！"


def rows_of(task: str, split: str, size: int) -> list[Row]:
    return [ROWS[task](split, number) for number in range(size)]


def answered(split: str, number: int) -> Row:
    context = sentence(split, number // 2)  # two questions on each
    start = context.index("号")
    answers = [] if number % 5 == 4 else [{"text": "号手机", "start": start}]
    return {"question": f"{split} {number} 是什么？", "context": context, "answers": answers}


ROWS: Mapping[str, Any] = {
    "text-classification": lambda split, n: {"text": sentence(split, n), "label": "好" if n % 2 else "差"},
    "multi-label-classification": lambda split, n: {
        "text": sentence(split, n),
        "labels": [name for bit, name in enumerate(("屏幕", "价格", "电池")) if n >> bit & 1],
    },
    "regression": lambda split, n: {"text": sentence(split, n), "text_pair": f"{split}{n}：不差", "score": n / 7},
    "token-classification": lambda split, n: {
        "tokens": ["张三", "在", "New", "York", f"{split}{n}"],
        "tags": ["B-人", "O", "B-地", "I-地", "O"],
    },
    "relation-classification": lambda split, n: {
        "text": f"<e1>{split}{n}</e1> 在 <e2>北京</e2>" if n % 2 else f"<e2>{split}{n}</e2> of <e1>北京</e1>",
        "label": "在(e1,e2)" if n % 2 else "在(e2,e1)",
    },
    "question-answering": answered,
}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "text-classification": {"text": "text", "label": "label"},
    "regression": {"text_pair": "text_pair"},
}
TARGETS: Mapping[str, pa.DataType] = {
    "text-classification": pa.int32(),
    "multi-label-classification": pa.list_(pa.int32()),
    "regression": pa.float64(),
    "token-classification": pa.list_(pa.int32()),
    "relation-classification": pa.int32(),
    "question-answering": pa.list_(pa.struct([("text", pa.string()), ("start", pa.int32())])),
}
LABELS: Mapping[str, list[str]] = {
    "text-classification": ["好", "差"],
    "multi-label-classification": sorted(["屏幕", "价格", "电池"]),
    "regression": ["score"],
    "token-classification": sorted(["B-人", "B-地", "I-地", "O"]),
    "relation-classification": ["在(e1,e2)", "在(e2,e1)"],
    "question-answering": ["start or no answer", "end or no answer"],
}


def section(folder: Any, task: str, **changes: Any) -> Data:
    columns = changes.pop("columns", COLUMNS.get(task, {}))
    return folder.data(task=task, columns=columns, **{"max_length": 60, **changes})  # type: ignore[no-any-return]


def validate(folder: Any, base_model: Path, data: Data, rules: Any = LENIENT) -> Path:
    output: Path = folder.root / "output"
    output.mkdir()
    settings = Validate.model_validate({"rules": rules})
    run(data_folder=Path("data"), base_model=base_model, data=data, settings=settings, output=output)
    return output


def refused(folder: Any, base_model: Path, data: Data, rules: Any = LENIENT) -> str:
    with pytest.raises(UserError) as caught:
        validate(folder, base_model, data, rules)
    assert caught.value.kind in ("gate", "data")
    assert list((folder.root / "output").iterdir()) == []
    return caught.value.message


def write(folder: Any, task: str, **sizes: int) -> None:
    for split, size in sizes.items():
        folder.write_rows(split, rows_of(task, split, size))


@pytest.mark.parametrize("task", list(ROWS))
def test_sound_rows_become_canonical_splits(folder: Any, base_model: Path, task: str) -> None:
    write(folder, task, train=40, validation=20, test=20)
    target = TASKS[task].target
    pool = [{role: value for role, value in row.items() if role != target} for row in rows_of(task, "unlabelled", 10)]
    folder.write_rows("unlabelled", pool)
    output = validate(folder, base_model, section(folder, task))
    schema = json.loads((output / "schema.json").read_text("utf-8"))
    assert (schema["task"], schema["labels"]) == (task, LABELS[task])
    assert schema["rows"] == {"train": 40, "validation": 20, "test": 20, "unlabelled": 10}
    train, unlabelled = (pq.read_table(output / split) for split in ("train", "unlabelled"))
    paired = ["text_pair"] if task in ("regression", "question-answering") else []
    worded = ["tokens"] if task == "token-classification" else []
    assert train.column_names == ["row", "text", *paired, *worded, "label", "group", "document"]
    assert train.schema.field("label").type == TARGETS[task]
    assert train.schema.equals(unlabelled.schema)
    assert unlabelled.column("label").null_count == 10
    assert train.column("label").null_count == 0
    said = [targets(task, row, schema["labels"]) for row in train.to_pylist()]
    assert said == [written(task, row) for row in rows_of(task, "train", 40)]
    gate = json.loads((output / "gate.json").read_text("utf-8"))
    assert all(rule["passed"] is not False for rule in gate["rules"] if rule["rule"] != "class_balance")


def targets(task: str, row: Row, labels: Sequence[str]) -> Any:
    """A canonical target as the file has it."""
    if task in ("regression", "question-answering"):
        return row["label"]
    return labels[row["label"]] if isinstance(row["label"], int) else [labels[place] for place in row["label"]]


def written(task: str, row: Row) -> Any:
    found = row[TASKS[task].target]
    return sorted(found, key=LABELS[task].index) if task == "multi-label-classification" else found


def test_words_stand_beside_their_text(folder: Any, base_model: Path) -> None:
    write(folder, "token-classification", train=40, validation=4, test=4)
    output = validate(folder, base_model, section(folder, "token-classification"))
    first = pq.read_table(output / "train").to_pylist()[0]
    assert (first["text"], first["tokens"]) == ("张三 在 New York train0", ["张三", "在", "New", "York", "train0"])
    facts = pq.read_table(output / "facts").to_pylist()[0]
    assert facts["tokens"] == len(["[CLS]", *"张三在", "new", "york", "train0", "[SEP]"])


def test_markers_of_entities_are_one_token_each_and_of_no_script(folder: Any, base_model: Path) -> None:
    texts = [{"text": f"<e1>{'好' * (n % 9 + 1)}</e1><e2>差</e2>", "label": "ab"[n % 2]} for n in range(40)]
    folder.write_rows("train", texts)
    with folder.facts(section(folder, "relation-classification")) as database:
        assert database.execute("SELECT DISTINCT script FROM facts").fetchall() == [("Han",)]
    from components.validate.tokens import token_counter

    count = token_counter(base_model, TASKS["relation-classification"].markers)
    assert count(["<e1>好</e1> <e2>差</e2>"]) == [8]


def test_spans_of_entities_are_written_as_markers(folder: Any, base_model: Path) -> None:
    texts = [f"第{number}台在北京" for number in range(30)]
    lines = [f"{text}\ta\t[0, {len(text) - 3}]\t[{len(text) - 2}, {len(text)}]\n" for text in texts]
    folder.write("train.tsv", "text\tlabel\te1\te2\n" + "".join(lines))
    columns = {"e1": "e1", "e2": "e2"}
    data = section(folder, "relation-classification", train="data/train.tsv", columns=columns, labels=["a", "b"])
    output = validate(folder, base_model, data, {"rows_per_class": {"severity": "off", "min_rows": 1}})
    rows = pq.read_table(output / "train").to_pylist()
    assert [row["text"] for row in rows] == [f"<e1>第{row['row']}台</e1>在<e2>北京</e2>" for row in rows]


BAD: Mapping[str, tuple[str, list[Row], list[str]]] = {
    "tags that don't match tokens": (
        "token-classification",
        [{"tokens": ["a", "b"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O", "I-地", "E-地"]}],
        [
            "2 rows of train with not as many tags as tokens: row 40 of data/train.jsonl (2 tokens, 1 tags), "
            "row 41 of data/train.jsonl (2 tokens, 3 tags)"
        ],
    ),
    "tags in no scheme": (
        "token-classification",
        [{"tokens": ["a", "b"], "tags": ["E-地", "B-地"]}],
        ["1 row of train with tags that follow neither IOB1, IOB2 nor BIOES: row 40 of data/train.jsonl (tag "],
    ),
    "an answer that isn't there": (
        "question-answering",
        [
            {"question": "谁？", "context": "张三来了", "answers": [{"text": "李四", "start": 0}]},
            {"question": "谁呢？", "context": "张三来了", "answers": "张三"},
        ],
        [
            "1 row of train with an answer that isn't in its context: row 40 of data/train.jsonl "
            "('李四' at character 0)",
            "1 row of train with answers that are no list of text and start: row 41 of data/train.jsonl ('张三')",
        ],
    ),
    "overlapping markers": (
        "relation-classification",
        [{"text": "<e1>a <e2>b</e1></e2>", "label": "在(e1,e2)"}, {"text": "<e1>a</e1> b", "label": "在(e1,e2)"}],
        [
            "1 row of train with overlapping entity markers: row 40 of data/train.jsonl",
            "1 row of train without just one <e1>…</e1> and one <e2>…</e2>: row 41 of data/train.jsonl",
        ],
    ),
    "a score that is no number": (
        "regression",
        [{"text": "a", "text_pair": "b", "score": "nan"}, {"text": "c", "text_pair": "d", "score": "高"}],
        [
            "2 rows of train with a score that is no number: row 40 of data/train.jsonl ('nan'), "
            "row 41 of data/train.jsonl ('高')"
        ],
    ),
    "a label that is no name": (
        "multi-label-classification",
        [{"text": "a", "labels": ["屏幕", None]}],
        ["1 row of train with a label that is no name: row 40 of data/train.jsonl (None)"],
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_rows_that_cannot_be_used_are_named_by_fault_and_nothing_is_written(
    folder: Any, base_model: Path, case: str
) -> None:
    task, bad, words = BAD[case]
    write(folder, task, train=40, validation=20, test=20)
    folder.write_rows("train", [*rows_of(task, "train", 40), *bad])
    message = refused(folder, base_model, section(folder, task))
    assert message.splitlines()[0] == "The data gate stopped the run; the data breaks 1 rule:"
    assert len(message.splitlines()) == 1 + len(words)
    for line, said in zip(message.splitlines()[1:], words, strict=True):
        assert line.startswith(f"  sound_rows: {said}"), message


def test_faulty_rows_are_left_out_where_the_rule_allows_them(folder: Any, base_model: Path) -> None:
    task, bad, _ = BAD["tags that don't match tokens"]
    write(folder, task, train=40, validation=20, test=20)
    folder.write_rows("test", [*rows_of(task, "test", 20), *bad])
    rules = {**LENIENT, "sound_rows": {"severity": "warning", "max_share": 0.0}}
    output = validate(folder, base_model, section(folder, task), rules)
    assert json.loads((output / "schema.json").read_text("utf-8"))["rows"]["test"] == 20


def test_a_file_of_faulty_rows_alone_is_told_as_such(folder: Any, base_model: Path) -> None:
    folder.write_rows("train", [{"tokens": ["a"], "tags": []} for _ in range(9)])
    message = refused(folder, base_model, section(folder, "token-classification"))
    assert "9 rows with not as many tags as tokens: row 0 (1 tokens, 0 tags), row 1" in message


UNSEEN: Mapping[str, tuple[Row, str]] = {
    "text-classification": ({"text": "新的", "label": "中"}, "'中' (1)"),
    "multi-label-classification": ({"text": "新的", "labels": ["屏幕", "颜色"]}, "'颜色' (1)"),
    "token-classification": ({"tokens": ["新", "的"], "tags": ["B-物", "I-物"]}, "'B-物' (1), 'I-物' (1)"),
    "relation-classification": ({"text": "<e1>新</e1><e2>的</e2>", "label": "无"}, "'无' (1)"),
}


@pytest.mark.parametrize("task", list(UNSEEN))
def test_labels_unseen_in_training_are_named(folder: Any, base_model: Path, task: str) -> None:
    row, words = UNSEEN[task]
    write(folder, task, train=40, validation=20, test=20)
    folder.write_rows("test", [*rows_of(task, "test", 20), row])
    message = refused(folder, base_model, section(folder, task))
    (line,) = message.splitlines()[1:]
    assert line.startswith("  known_label: 1 of 21 rows of test with a label other than ")
    assert words in line
    assert "row 20 of data/test.jsonl" in line


def test_rows_without_targets_are_refused(folder: Any, base_model: Path) -> None:
    write(folder, "regression", train=40, validation=20, test=20)
    unscored = {"text": "a", "text_pair": "b", "score": float("nan")}
    folder.write_rows("test", [*rows_of("regression", "test", 20), unscored])
    message = refused(folder, base_model, section(folder, "regression"))
    assert "missing_label: 1 of 21 rows of test without a score" in message
    assert "row 20 of data/test.jsonl" in message


@pytest.mark.parametrize(
    ("task", "other", "named"),
    [("regression", 9.5, "another score"), ("token-classification", ["O"] * 5, "other tags")],
)
def test_messages_call_the_target_by_its_name(folder: Any, base_model: Path, task: str, other: Any, named: str) -> None:
    write(folder, task, train=40, validation=20, test=20)
    rows, target = rows_of(task, "train", 40), TASKS[task].target
    folder.write_rows("train", [*rows, rows[0] | {target: other}])
    rules = LENIENT | {"conflicting_labels": {"severity": "error", "max_share": 0.0}}
    message = refused(folder, base_model, section(folder, task), rules)
    assert f"whose text also stands there with {named} (" in message
    assert f"of data/train.jsonl ({target} '" in message


@pytest.mark.parametrize("task", list(ROWS))
def test_splits_are_made_for_every_task(folder: Any, base_model: Path, task: str) -> None:
    write(folder, task, train=120)
    output = validate(folder, base_model, section(folder, task))
    rows = json.loads((output / "schema.json").read_text("utf-8"))["rows"]
    assert sum(rows.values()) == 120
    assert 6 <= rows["validation"] <= 18
    assert 16 <= rows["test"] <= 32
    assert not set(pq.read_table(output / "train")["text"].to_pylist()) & set(
        pq.read_table(output / "test")["text"].to_pylist()
    )


def test_questions_on_one_context_never_straddle_splits(folder: Any, base_model: Path) -> None:
    write(folder, "question-answering", train=120)
    output = validate(folder, base_model, section(folder, "question-answering"))
    found = {split: pq.read_table(output / split) for split in ("train", "validation", "test")}
    contexts = {split: set(table["text_pair"].to_pylist()) for split, table in found.items()}
    assert not contexts["train"] & contexts["test"] | contexts["train"] & contexts["validation"]
    assert not contexts["validation"] & contexts["test"]
    assert all(len(set(table["document"].to_pylist())) == len(contexts[split]) for split, table in found.items())


def test_a_column_of_documents_counts_before_contexts(folder: Any) -> None:
    rows = [row | {"title": f"文{number // 12}"} for number, row in enumerate(rows_of("question-answering", "t", 120))]
    folder.write_rows("train", rows)
    with folder.facts(section(folder, "question-answering", columns={"document": "title"})) as database:
        query = "SELECT document, count(DISTINCT split) FROM facts GROUP BY document"
        assert sorted(database.execute(query).fetchall()) == sorted((f"文{number}", 1) for number in range(10))


def test_labels_can_be_named_for_tags_too(folder: Any, base_model: Path) -> None:
    write(folder, "token-classification", train=40, validation=20, test=20)
    labels = ["O", "B-地", "I-地", "B-人", "I-人"]
    output = validate(folder, base_model, section(folder, "token-classification", labels=labels))
    assert json.loads((output / "schema.json").read_text("utf-8"))["labels"] == labels
    assert pq.read_table(output / "train")["label"].to_pylist()[0] == [3, 0, 1, 2, 0]


def test_with_windows_no_row_is_cut(folder: Any, base_model: Path) -> None:
    write(folder, "text-classification", train=40, validation=20, test=20)
    rows = [row | {"text": row["text"] + "好" * 60} for row in rows_of("text-classification", "train", 40)]
    folder.write_rows("train", rows)
    output = validate(folder, base_model, section(folder, "text-classification", windows={"stride": 8}))
    gate = json.loads((output / "gate.json").read_text("utf-8"))
    assert {rule["rule"]: rule["passed"] for rule in gate["rules"]}["truncated"] is None


def test_a_mix_of_languages_is_warned_of(folder: Any, base_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, text in {"train": "good", "validation": "bad", "test": "不差"}.items():
        folder.write_rows(
            split, [{"text": f"{text} {split[0]} {number}", "label": "ab"[number % 2]} for number in range(20)]
        )
    validate(folder, base_model, section(folder, "text-classification"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "language_mix" in line]
    assert line.startswith(
        "warning: language_mix: 20 of 20 rows of test mainly written in a script that fewer than 1% of the training "
        "rows are written in (100.00%; at most 5% allowed): 'Han' (20); see row 0 of data/test.jsonl"
    )


OTHER_FILES = ("train", "validation")


@pytest.mark.parametrize("task", list(ROWS))
@pytest.mark.parametrize("held_out", [True, False], ids=["given", "made"])
def test_any_task_can_be_trained_beside_the_projects_own(
    folder: Any, base_model: Path, task: str, held_out: bool
) -> None:
    write(folder, "text-classification", train=40, validation=20, test=20)
    for split in OTHER_FILES:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows_of(task, split, 20)]
        folder.write(f"beside/{split}.jsonl", "\n".join(lines))
    columns = {"columns": {"text_pair": "text_pair"}} if task == "regression" else {}
    given = {"validation": "data/beside/validation.jsonl"} if held_out else {}
    other = {"type": task, "train": "data/beside/train.jsonl", **columns, **given}
    output = validate(folder, base_model, section(folder, "text-classification", tasks={"other": other}))
    told = json.loads((output / "tasks/tasks.json").read_text("utf-8"))
    assert told == {"other": {"type": task, "labels": LABELS[task]}}
    tables = [pq.read_table(output / "tasks/other" / split) for split in OTHER_FILES]
    assert sum(table.num_rows for table in tables) == (40 if held_out else 20)
    assert [name for name in tables[0].column_names if name not in ("text_pair", "tokens")] == ["row", "text", "label"]
    assert tables[0].schema.field("label").type == TARGETS[task]
    assert targets(task, tables[0].to_pylist()[0], LABELS[task]) == written(
        task, rows_of(task, "train", 20)[tables[0]["row"][0].as_py()]
    )


@pytest.mark.parametrize("case", list(BAD))
def test_bad_rows_of_other_tasks_are_named(folder: Any, base_model: Path, case: str) -> None:
    task, bad, words = BAD[case]
    write(folder, "text-classification", train=40, validation=20, test=20)
    lines = [json.dumps(row, ensure_ascii=False) for row in [*rows_of(task, "train", 40), *bad]]
    folder.write("beside/train.jsonl", "\n".join(lines))
    columns = {"columns": {"text_pair": "text_pair"}} if task == "regression" else {}
    other = {"type": task, "train": "data/beside/train.jsonl", **columns}
    message = refused(folder, base_model, section(folder, "text-classification", tasks={"other": other}))
    assert message.startswith("data/beside/train.jsonl (data.tasks.other.train) can't be used:")
    for said in words:
        fault = said.replace(" of train", "").replace(" of data/train.jsonl", "")
        assert fault in message


class Headings(TextClassification):
    """A task of its own, as another file of the folder might have it."""

    name = "headings"
    columns = ("heading", "kind")
    optional = ()  # type: ignore[assignment]
    target = "kind"

    def read(self, values: Mapping[str, Any]) -> Example:
        kind = values["kind"]
        return Example((values["heading"],), names=None if kind is None else [kind.upper()])


def test_a_task_that_is_added_needs_nothing_else(
    folder: Any, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "headings", Headings())
    for split in ("train", "validation", "test"):
        rows = [{"heading": f"{split} 第{number}条", "type": "ab"[number % 2]} for number in range(20)]
        folder.write_rows(split, rows)
    folder.write_rows("unlabelled", [{"heading": "没有"}])
    other = {"type": "headings", "train": "data/train.jsonl", "columns": {"kind": "type"}}
    data = section(folder, "headings", columns={"kind": "type"}, tasks={"other": other})
    output = validate(folder, base_model, data)
    schema = json.loads((output / "schema.json").read_text("utf-8"))
    assert (schema["task"], schema["labels"], schema["rows"]["train"]) == ("headings", ["A", "B"], 20)
    assert pq.read_table(output / "test")["label"].to_pylist() == [0, 1] * 10
    assert pq.read_table(output / "unlabelled").num_rows == 1
    assert json.loads((output / "tasks/tasks.json").read_text("utf-8"))["other"]["labels"] == ["A", "B"]
