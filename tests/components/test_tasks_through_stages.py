"""Every task through every stage that knows a model: teacher, label, distill, control, finetune, export, evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import label
from components.evaluate import stage as evaluate
from components.export import stage as export
from components.ml.models.loading import load
from components.ml.models.scoring import label_names, load_classifier, predict_rows
from components.ml.models.task_models import task_of
from components.ml.rows.inputs import inputs_of
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading
from components.params.data import Windows
from components.params.export import Export
from components.params.stages import Bootstrap, Evaluate, Label, Runtime
from tests.components.test_training_stages import (
    DISTILL,
    run_control,
    run_distill,
    run_finetune,
    train_teacher,
)
from tests.conftest import BAD, GOOD, NEUTRAL, make_texts

RUNTIME = Runtime(threads=1)
SIZES = {"train": 120, "validation": 24, "test": 40, "unlabelled": 30}
LABELS = {
    "multi-label-classification": ["bad", "good", "long"],
    "regression": ["score"],
    "token-classification": ["B-praise", "I-praise", "O"],
    "relation-classification": ["Likes(e1,e2)", "Likes(e2,e1)", "Other"],
    "question-answering": ["start or no answer", "end or no answer"],
}
WINDOWS = {"question-answering": Windows(stride=4), "token-classification": Windows(stride=2)}
LENGTH = {"question-answering": 14, "token-classification": 12}


def row_of(task: str, text: str) -> tuple[dict[str, Any], Any]:
    """What is read of a row made from a text, and its target."""
    words = text.split()
    praised = [word in GOOD for word in words]
    if task == "multi-label-classification":
        present = [any(word in BAD for word in words), any(praised), len(words) > 8]
        return {"text": text}, [place for place, there in enumerate(present) if there]
    if task == "regression":
        return {"text": text, "text_pair": words[0]}, float(sum(praised) - sum(word in BAD for word in words))
    if task == "token-classification":
        begun = [False, *praised[:-1]]
        tags = [2 if not here else 1 if goes_on else 0 for here, goes_on in zip(praised, begun, strict=True)]
        return {"text": text, "tokens": words}, tags
    if task == "relation-classification":
        first = next(index for index, word in enumerate(words[:-1]) if word in (*GOOD, *BAD))
        before, between = " ".join(words[:first]), " ".join(words[first + 1 : -1])
        marked = f"{before} <e1>{words[first]}</e1> {between} <e2>{words[-1]}</e2>"
        return {"text": marked}, 0 if words[first] in GOOD else 1
    place = next((index for index, good in enumerate(praised) if good), None)
    start = 0 if place is None else len(" ".join(words[:place])) + bool(place)
    answers = [] if place is None else [{"text": words[place], "start": start}]
    return {"text": f"{NEUTRAL[0]} {NEUTRAL[1]}", "text_pair": text}, answers


def write_splits(folder: Path, task: str) -> Path:
    """What the data gate writes."""
    texts = [text for text, _ in make_texts(420) if " " in text]
    for split, size in SIZES.items():
        rows = [row_of(task, texts.pop()) for _ in range(size)]
        given = {role: [row[role] for row, _ in rows] for role in rows[0][0]}
        targets = [None if split == "unlabelled" else target for _, target in rows]
        table = pa.table(
            {
                "row": pa.array(range(size), pa.int64()),
                **given,
                "label": pa.array(targets, TASKS[task].target_type()),
                "group": ["ab"[index % 2] for index in range(size)],
                "document": [f"d{index // 3}" for index in range(size)],
            }
        )
        (folder / split).mkdir(parents=True)
        pq.write_table(table, folder / split / "part-00000.parquet")
    (folder / "schema.json").write_text(json.dumps({"task": task, "labels": LABELS[task], "groups": ["a", "b"]}))
    (folder / "tasks").mkdir()
    (folder / "tasks/tasks.json").write_text("{}")
    return folder


class Made:
    """The outputs of the stages, by name, and how rows were read."""

    def __init__(self, task: str, root: Path, base: Path) -> None:
        self.task, self.root, self.splits = TASKS[task], root, write_splits(root / "splits", task)
        self.windows, self.max_length = WINDOWS.get(task, Windows()), LENGTH.get(task, 32)
        self.reading = self.windows.reading(self.max_length)
        self.how: dict[str, Any] = {"max_length": self.max_length, "windows": self.windows}
        taught = train_teacher(self.splits, base, root / "teacher", general={"epochs": 15}, **self.how)
        self.folders = {"teacher": taught}
        self.folders["label"] = self.label(root / "label")
        self.folders["distill"] = run_distill(self.splits, self.folders, root / "distill", DISTILL, **self.how)
        self.folders["control"] = run_control(self.splits, self.folders, root / "control", DISTILL, **self.how)
        self.folders["finetune"] = run_finetune(self.splits, self.folders, root / "finetune", common=self.how)
        self.folders["export"] = root / "export"
        self.folders["export"].mkdir()
        export.run(
            **{name: self.splits / name for name in ("train", "validation", "test")},
            lora=self.folders["finetune"] / "model",
            runtime=RUNTIME,
            settings=Export(tolerance=1.0, calibration_texts=16),
            output=self.folders["export"],
            **self.how,
        )

    def label(self, output: Path) -> Path:
        """Run the stage."""
        output.mkdir()
        label.run(
            **{name: self.splits / name for name in ("train", "unlabelled", "validation")},
            judgements=self.root / "none",
            teacher=self.folders["teacher"] / "model",
            folders=self.root / "none",
            runtime=RUNTIME,
            models={},
            settings=Label(),
            logit_store=self.root / "store",
            output=output,
            **self.how,
        )
        return output

    def evaluate(self, output: Path) -> dict[str, Any]:
        """Run the stage; gives metrics.json."""
        output.mkdir()
        controls = self.root / f"controls-{output.name}"
        controls.mkdir()
        told = {"seed": 5, "seeds": [], "direct_finetune": False, "direct": None}
        (controls / "controls.json").write_text(json.dumps(told))
        evaluate.run(
            test=self.splits / "test",
            teacher=self.folders["teacher"],
            student=self.folders["distill"],
            student_without_distillation=self.folders["control"],
            lora=self.folders["finetune"],
            controls=controls,
            export=self.folders["export"],
            runtime=RUNTIME,
            settings=Evaluate(bootstrap=Bootstrap(resamples=100), batch_size=8),
            target_group="a",
            output=output,
            **self.how,
        )
        found: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
        return found

    def rows(self, split: str) -> pa.Table:
        """The rows of a split."""
        return pq.read_table(self.splits / split)


@pytest.fixture(scope="module", params=list(LABELS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Made:
    return Made(request.param, tmp_path_factory.mktemp("stages"), tiny_encoder)


@pytest.fixture(scope="module")
def metrics(made: Made) -> dict[str, Any]:
    return made.evaluate(made.root / "evaluate")


def test_every_model_knows_its_task_and_labels(made: Made) -> None:
    for stage in ("teacher", "distill", "control", "finetune", "export/onnx", "export/int8"):
        model, _ = load(made.root / stage / "model", torch_cpu())
        assert task_of(model) is made.task, stage
        assert label_names(model) == LABELS[made.task.name], stage


def torch_cpu() -> Any:
    import torch

    return torch.device("cpu")


def test_phases_learn_and_tell_the_task_s_own_metrics(made: Made) -> None:
    lines = [json.loads(line) for line in (made.folders["teacher"] / "history.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "eval_loss" in line]
    assert measured[-1]["eval_loss"] < measured[0]["eval_loss"]
    for name in made.task.validated:
        assert np.isfinite(measured[-1][f"eval_{name}"]), name


def test_stored_logits_are_the_teacher_s(made: Made) -> None:
    model, tokenizer = load_classifier(made.folders["teacher"] / "model")
    for split in ("train", "unlabelled"):
        stored = pq.read_table(made.folders["label"] / split)
        expected = predict_rows(model, tokenizer, inputs_of(made.rows(split)), reading=made.reading)
        for found, one in zip(stored["logits"].to_pylist(), expected, strict=True):
            assert np.allclose(np.array(found, dtype=np.float32), one.ravel(), atol=1e-5, equal_nan=True)
        confidence = np.array(stored["confidence"].to_pylist())
        assert ((confidence >= 0) & (confidence <= 1)).all()


def test_logits_from_the_store_are_the_same_bytes(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    again = made.label(made.root / "again")
    assert "174 of 174 rows found in the store" in capsys.readouterr().out
    for split in ("train", "unlabelled"):
        (one,), (other,) = (list((folder / split).iterdir()) for folder in (again, made.folders["label"]))
        assert one.read_bytes() == other.read_bytes()


def test_training_twice_gives_the_same_weights(made: Made, tmp_path: Path) -> None:
    again = run_distill(made.splits, made.folders, tmp_path / "distill", DISTILL, **made.how)
    weights = "model/model.safetensors"
    assert (again / weights).read_bytes() == (made.folders["distill"] / weights).read_bytes()


def test_the_teacher_s_word_changes_the_student(made: Made) -> None:
    weights = [(made.folders[stage] / "model/model.safetensors").read_bytes() for stage in ("distill", "control")]
    assert weights[0] != weights[1]


def test_metrics_are_those_of_the_predictions(made: Made, metrics: dict[str, Any]) -> None:
    assert (metrics["task"], metrics["headline"]) == (made.task.name, made.task.headline.key)
    names, targets = LABELS[made.task.name], made.rows("test")["label"].to_pylist()
    for name, told in metrics["models"].items():
        table = pq.read_table(made.root / f"evaluate/predictions/{name}.parquet")
        predictions = table["prediction"].to_pylist()
        sums = np.asarray(made.task.counts(targets, predictions, names).sum(axis=0))
        scores = made.task.scores(sums, names)
        assert told[made.task.headline.key] == pytest.approx(float(scores[made.task.headline.key]), abs=1e-9)
        low, high = told[f"{made.task.headline.key}_ci"]
        assert low <= high
        assert table["actual"].to_pylist() == [made.task.said(target, names) for target in targets]
        right = made.task.right(targets, predictions)
        assert table["right"].to_pylist() == ([None] * len(targets) if right is None else right.tolist())
        assert ("ece" in told) == made.task.classes_per_row
        assert set(told["groups"]) == {"a", "b"}
    assert metrics["models"]["teacher"]["agreement_with_teacher"] == pytest.approx(1.0)


def test_evaluating_again_gives_the_same_bytes(made: Made, metrics: dict[str, Any]) -> None:
    made.evaluate(made.root / "once-more")
    for path in sorted(path for path in (made.root / "evaluate").rglob("*") if path.is_file()):
        assert path.read_bytes() == (made.root / "once-more" / path.relative_to(made.root / "evaluate")).read_bytes()


def test_exported_logits_are_the_model_s(made: Made) -> None:
    inputs = inputs_of(made.rows("test"))
    model, tokenizer = load_classifier(made.folders["finetune"] / "model")
    expected = predict_rows(model, tokenizer, inputs, reading=made.reading)
    exported, its_tokenizer = load(made.folders["export"] / "onnx/model", torch_cpu())
    found = predict_rows(exported, its_tokenizer, inputs, reading=made.reading)
    for one, other in zip(expected, found, strict=True):
        assert np.allclose(one, other, atol=1e-4, equal_nan=True)
    told = json.loads((made.folders["export"] / "export.json").read_text())
    assert made.task.headline.key in told["int8"]["tried"]["per_channel"]


def test_windows_read_what_a_cut_would_lose(made: Made) -> None:
    if made.windows.stride is None:
        pytest.skip("the rows fit")
    model, tokenizer = load_classifier(made.folders["teacher"] / "model")
    inputs = inputs_of(made.rows("test"))
    whole = predict_rows(model, tokenizer, inputs, reading=made.reading)
    cut = predict_rows(model, tokenizer, inputs, reading=Reading(made.max_length))
    assert not any(np.isnan(one).any() for one in whole)
    assert sum(map(len, whole)) > sum(map(len, cut))
    assert [len(one) for one in whole] == made.task.positions(inputs, tokenizer)


def test_the_teacher_does_better_than_an_untrained_one(made: Made, metrics: dict[str, Any]) -> None:
    names, targets = LABELS[made.task.name], made.rows("test")["label"].to_pylist()
    guesses: Mapping[str, Any] = {
        "multi-label-classification": [],
        "regression": 0.0,
        "relation-classification": 2,
        "question-answering": {"text": "", "start": -1, "end": -1},
    }
    guess = [guesses.get(made.task.name, [2] * len(target) if isinstance(target, list) else 0) for target in targets]
    sums = np.asarray(made.task.counts(targets, guess, names).sum(axis=0))
    least = float(made.task.scores(sums, names)[made.task.headline.key])
    assert metrics["models"]["teacher"][made.task.headline.key] > least
