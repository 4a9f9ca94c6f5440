"""All tasks keep to what the rest relies on, and another one is a class in the table."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerBase

from components import label, teacher
from components.evaluate.scoring import common_classes, read_rows
from components.evaluate.scoring import score as score_split
from components.evaluate.summary import summarise
from components.ml.models.scoring import load_classifier, predict_rows, score
from components.ml.models.storage import save
from components.ml.models.task_models import task_of
from components.ml.rows.tokenised import Collator, Source, tokenise
from components.ml.tasks.regression import Regression
from components.ml.tasks.row_task import RowTask
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Example, Metric, Reading
from components.ml.training.objectives import Labels
from components.params.data import Windows
from components.params.stages import Bootstrap, Evaluate, Label, Runtime, Teacher
from tests.components.ml.tasks.tools import LABELS, model_of, sample, write_rows
from tests.conftest import BAD, GOOD, NEUTRAL


def test_every_task_is_found_under_its_name() -> None:
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in LABELS}
    assert TASKS[DEFAULT].name == "text-classification"


@pytest.mark.parametrize("kind", LABELS)
def test_a_task_keeps_to_what_the_rest_relies_on(kind: str) -> None:
    task = TASKS[kind]
    assert task.target in task.columns
    assert task.columns[-1] == task.target
    assert set(task.lists_as_text) <= set(task.lists) <= {*task.columns, *task.optional}
    assert task.validated[0] == "loss"
    assert task.headline is task.metrics[0]
    assert len({metric.key for metric in task.metrics}) == len(task.metrics)
    assert isinstance(task, RowTask) or not task.prompts
    targets = [target for _, target in sample(kind, 20)]
    inputs = [given for given, _ in sample(kind, 20)]
    draw = np.random.default_rng(0)
    widths = [len(given) if kind == "token-classification" else 1 for given in inputs]
    logits = [draw.normal(size=(width, len(LABELS[kind]))).astype(np.float32) for width in widths]
    if kind == "question-answering":
        return  # its predictions need a tokenizer
    predicted = task.decode(inputs, logits, LABELS[kind], None)
    sums = np.asarray(task.counts(targets, predicted, LABELS[kind]).sum(axis=0))
    found = {**task.scores(sums, LABELS[kind]), **task.beside(targets, predicted, logits, LABELS[kind])}
    assert task.headline.key in task.scores(sums, LABELS[kind])
    measured = {metric.key for metric in task.metrics} - ({"f1"} if kind == DEFAULT else set())  # of two classes alone
    assert measured <= set(found)
    assert task.agreement(predicted, predicted) == pytest.approx(1.0)
    for name in ("confidence", "right"):
        value = task.confidence(logits) if name == "confidence" else task.right(targets, predicted)
        assert value is None or value.shape == (20,)
    told = task.answers(inputs, predicted, logits, LABELS[kind])
    assert len(told) == 20
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("reading", [Reading(16), Reading(16, 5), Reading(16, 5, "max")], ids=["cut", "mean", "max"])
@pytest.mark.parametrize("kind", LABELS)
def test_a_rows_logits_do_not_depend_on_the_other_rows_to_the_bit(
    kind: str, reading: Reading, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = model_of(kind, tokenizer)
    inputs = [given for given, _ in sample(kind, 40, 2, 24)]

    def scored(some: list[Any]) -> list[np.ndarray]:
        """Checked, since for the small matrices of tiny heads there are kernels that treat rows differently."""
        found: dict[int, np.ndarray] = {}
        for tags, logits in score(model, tokenizer, enumerate(some), reading=reading, batch_size=8, checked=True):
            found |= zip(tags, logits, strict=True)
        return [found[place] for place in range(len(some))]

    whole = scored(inputs)
    plain = predict_rows(model, tokenizer, inputs, reading=reading, batch_size=8)
    assert all(np.allclose(one, other, atol=1e-5, equal_nan=True) for one, other in zip(plain, whole, strict=True))
    counts = TASKS[kind].positions(inputs, tokenizer)
    assert all(len(one) <= count for one, count in zip(whole, counts, strict=True))
    assert reading.stride is None or [len(one) for one in whole] == counts
    assert reading.stride is None or all(np.isfinite(one).all() for one in whole)
    draw = random.Random(0)
    for count in (1, 3, 20):
        places = draw.sample(range(40), count)
        part = scored([inputs[place] for place in places])
        assert [one.tobytes() for one in part] == [whole[place].tobytes() for place in places]


@pytest.mark.parametrize("kind", ["token-classification", "question-answering", "relation-classification"])
def test_padding_on_the_left_moves_no_positions_away_from_their_tokens(
    kind: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = model_of(kind, tokenizer, "modernbert")  # whose positions padding doesn't move
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    inputs = [given for given, _ in sample(kind, 10, 2)]
    expected = predict_rows(model, tokenizer, inputs, reading=Reading(40), batch_size=8)
    tokenizer.padding_side = "left"
    found = predict_rows(model, tokenizer, inputs, reading=Reading(40), batch_size=8)
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other, atol=1e-4)


class Levels(Regression):
    """A level of -2 to 2, which is predicted by rounding a number."""

    name = "ordinal-regression"
    columns = ("text", "level")
    target = "level"
    metrics: ClassVar[Any] = (Metric("within_one", "at most one level off"), Metric("exact", "right levels"))

    def read(self, values: Any) -> Example:
        return super().read({**values, "score": values.get("level")})

    def decode(self, inputs: Any, logits: Any, names: Any, tokenizer: Any) -> list[Any]:
        return [float(np.clip(np.round(one[0, 0]), -2, 2)) for one in logits]

    def counts(self, targets: Any, predictions: Any, names: Any) -> Any:
        off = np.abs(np.asarray(targets) - np.asarray(predictions))
        return np.stack([off <= 1, off == 0, np.ones_like(off)], axis=1).astype(np.int64)

    def scores(self, sums: np.ndarray, names: Any) -> dict[str, np.ndarray]:
        return {"within_one": sums[..., 0] / sums[..., 2], "exact": sums[..., 1] / sums[..., 2]}

    def beside(self, targets: Any, predictions: Any, logits: Any, names: Any) -> dict[str, Any]:
        return {}

    def right(self, targets: Any, predictions: Any) -> np.ndarray | None:
        return np.array(np.asarray(targets) == np.asarray(predictions), dtype=bool)

    def answers(self, inputs: Any, predictions: Any, logits: Any, names: Any) -> list[dict[str, Any]]:
        return [{"level": int(level)} for level in predictions]


def levels(count: int, seed: int) -> list[tuple[str, float]]:
    """Texts with more good words on higher levels."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        level = draw.randint(-2, 2)
        tokens = [*draw.choices(GOOD, k=2 + level), *draw.choices(BAD, k=2 - level), *draw.choices(NEUTRAL, k=2)]
        draw.shuffle(tokens)
        rows.append((" ".join(tokens), float(level)))
    return rows


def test_a_task_is_added_by_a_class_in_the_table(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, Levels.name, Levels())
    splits = {"train": 240, "unlabelled": 0, "validation": 40, "test": 60}
    for seed, (split, count) in enumerate(splits.items()):
        write_rows(tmp_path / split, Levels.name, levels(count, seed))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/tasks.json").write_text("{}")
    (tmp_path / "schema.json").write_text(json.dumps({"labels": ["score"], "task": Levels.name}))
    (tmp_path / "teacher").mkdir()
    phase = {
        "objective": "labels",
        "epochs": 20,
        "lr": 1e-2,
        "schedule": "constant",
        "dropout": 0.0,
        "early_stopping": {"metric": "rmse", "patience": 20},
    }
    runtime = Runtime(threads=1)
    teacher.run(
        **{name: tmp_path / name for name in ("train", "unlabelled", "validation", "tasks")},
        schema=tmp_path / "schema.json",
        base_model=tiny_encoder,
        seed=1,
        runtime=runtime,
        max_length=32,
        settings=Teacher.model_validate({"base": "data/base_model", "order": ["fit"], "phases": {"fit": phase}}),
        output=tmp_path / "teacher",
    )
    model, _ = load_classifier(tmp_path / "teacher/model")
    assert task_of(model) is TASKS[Levels.name]
    history = [json.loads(line) for line in (tmp_path / "teacher/history.jsonl").read_text().splitlines()]
    errors = [line["eval_rmse"] for line in history if "eval_rmse" in line]
    (told,) = json.loads((tmp_path / "teacher/phases.json").read_text())
    assert told["best"] == {"rmse": min(errors)}
    rows = read_rows(tmp_path / "test")
    found = score_split(
        tmp_path / "test",
        tmp_path / "teacher/model",
        tmp_path / "teacher.parquet",
        runtime=runtime,
        reading=Reading(32),
        batch_size=8,
    )
    models = dict.fromkeys(("teacher", "student", "student_without_distillation", "lora"), found)
    assert common_classes(models, rows) == ["score"]
    settings = Evaluate(bootstrap=Bootstrap(resamples=100))
    metrics = summarise(rows, models, {1: dict.fromkeys(models, found.predictions)}, settings, "a")
    assert (metrics["task"], metrics["headline"]) == (Levels.name, "within_one")
    told = metrics["models"]["teacher"]
    assert told["within_one"] > 0.9
    low, high = told["within_one_ci"]
    assert low <= told["within_one"] <= high
    assert metrics["differences"]["student - teacher"]["within_one"] == 0
    written = pq.read_table(tmp_path / "teacher.parquet").to_pydict()
    assert set(written["prediction"]) <= {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert written["right"] == [a == b for a, b in zip(written["label"], written["prediction"], strict=True)]
    answers = TASKS[Levels.name].answers([], written["prediction"][:2], [], ["score"])
    assert answers == [{"level": int(level)} for level in written["prediction"][:2]]


@pytest.mark.parametrize("windows", [Windows(), Windows(stride=4)], ids=["cut", "windows"])
@pytest.mark.parametrize("kind", LABELS)
def test_a_student_reads_the_logits_that_the_teacher_gave_its_positions(
    kind: str, windows: Windows, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    task, model = TASKS[kind], model_of(kind, tokenizer)
    save(model, tokenizer, tmp_path / "model")
    splits = {"train": sample(kind, 9, 1, 20), "unlabelled": sample(kind, 5, 2, 20), "validation": sample(kind, 6, 3)}
    for split, rows in splits.items():
        write_rows(tmp_path / split, kind, [(given, None if split == "unlabelled" else at) for given, at in rows])
    reading = windows.reading(20)
    for output, store in (("labels", "store"), ("again", "store"), ("anew", "other")):
        (tmp_path / output).mkdir()
        label.run(
            **{name: tmp_path / name for name in (*splits, "judgements")},
            teacher=tmp_path / "model",
            runtime=Runtime(threads=1),
            max_length=20,
            models={},
            settings=Label(batch_size=8),
            logit_store=tmp_path / store,
            output=tmp_path / output,
            windows=windows,
            **{"folders": tmp_path / "folders.json"},
        )
    for path in (tmp_path / "labels").rglob("*.*"):
        name = path.relative_to(tmp_path / "labels")
        assert path.read_bytes() == (tmp_path / "again" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()
    calibration = json.loads((tmp_path / "labels/calibration.json").read_text())
    assert (calibration["temperature"] != 1.0) == task.calibrated
    for split in ("train", "unlabelled"):
        inputs = [given for given, _ in splits[split]]
        expected = predict_rows(model, tokenizer, inputs, reading=reading, batch_size=8)
        written = pq.read_table(tmp_path / "labels" / split)
        counts = task.positions(inputs, tokenizer)
        for row, count, own in zip(written["logits"].to_pylist(), counts, expected, strict=True):
            found = np.array(row, np.float32).reshape(count, -1)
            assert np.allclose(found[: len(own)], own, atol=1e-5, equal_nan=True)
            assert np.isnan(found[len(own) :]).all()
        sure = task.confidence([one / calibration["temperature"] for one in expected])
        assert written["confidence"].to_pylist() == pytest.approx(
            [1.0] * len(inputs) if sure is None else sure, abs=1e-5
        )
        source = Source(tmp_path / split, tmp_path / "labels" / split)
        items = tokenise(
            [source], tokenizer, tmp_path / f"{split}.arrow", task=task, classes=len(LABELS[kind]), reading=reading
        )
        each = [window for given in inputs for window in task.windows(tokenizer, [given], reading)[0]]
        batch = Collator(tokenizer, task, len(LABELS[kind]))([items[index] for index in range(len(items))])
        assert len(items) == len(each)
        counted = Labels(task=task).counts(batch).tolist()
        words = sum(len(one.covers) for one in each)
        per_window = {"token-classification": words, "question-answering": 2 * len(each)}.get(kind, len(each))
        assert counted == [per_window, per_window if split == "train" else 0]
