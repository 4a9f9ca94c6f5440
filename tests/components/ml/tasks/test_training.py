"""Every task through the stages that train: a teacher, its logits, a student that learns from both, a fine-tune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components import label
from components.errors import UserError
from components.ml.adapters.peft_models import merged
from components.ml.models.scoring import predict_rows
from components.ml.models.storage import load_base, save
from components.ml.models.students import build_student
from components.ml.rows.tokenised import Splits
from components.ml.tasks.table import TASKS
from components.ml.teaching.lessons import Lessons
from components.ml.teaching.logit_store import teacher_key
from components.ml.training.checkpoints import PhaseCheckpoints
from components.ml.training.phases import run_phases
from components.params.data import Windows
from components.params.phases import Phase
from components.params.stages import Distill, Label, Runtime
from tests.components.ml.tasks.tools import LABELS, sample, write_rows

RUNTIME = Runtime(threads=1)
WINDOWS = Windows(stride=4)
READING = WINDOWS.reading(20)
TERMS = {"hidden": {"weight": 0.1}}


@pytest.fixture
def splits(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Rows of the task that the test is about; the pool's have no targets."""
    kind = request.node.callspec.params["kind"]
    for seed, (split, count) in enumerate({"train": 40, "unlabelled": 10, "validation": 12}.items()):
        rows = sample(kind, count, seed, 20)
        write_rows(tmp_path / split, kind, [(given, None if split == "unlabelled" else at) for given, at in rows])
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/tasks.json").write_text("{}")
    return tmp_path


def train(model: Any, tokenizer: Any, splits: Path, history: Path, phase: dict[str, Any], **more: Any) -> Any:
    history.parent.mkdir(exist_ok=True)
    return run_phases(
        model,
        tokenizer,
        [("fit", Phase.model_validate({"objective": "labels", "epochs": 3, "lr": 5e-3, "batch_size": 8} | phase))],
        splits=Splits(*(splits / name for name in ("train", "unlabelled", "validation", "tasks"))),
        history=history,
        seed=3,
        reading=READING,
        **{"runtime": RUNTIME} | more,
    )


def measured(history: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    return [line for line in lines if "eval_loss" in line]


@pytest.mark.parametrize("kind", LABELS)
def test_a_teacher_a_student_and_a_fine_tune_learn(kind: str, tiny_encoder: Path, splits: Path) -> None:
    task = TASKS[kind]
    torch.manual_seed(1)
    model, tokenizer = load_base(tiny_encoder, LABELS[kind], task=task)
    best = task.validated[1]
    stopping = {"early_stopping": {"metric": best, "patience": 3}}
    teacher = train(model, tokenizer, splits, splits / "teacher/history.jsonl", stopping)
    for line in measured(splits / "teacher/history.jsonl"):
        assert {f"eval_{name}" for name in task.validated} <= line.keys()
        assert all(np.isfinite(value) for name, value in line.items() if name.startswith("eval_"))
    save(teacher, tokenizer, splits / "teacher/model")
    (splits / "label").mkdir()
    label.run(
        **{name: splits / name for name in ("train", "unlabelled", "validation", "judgements")},
        teacher=splits / "teacher/model",
        folders=splits / "folders.json",
        runtime=RUNTIME,
        max_length=20,
        models={},
        settings=Label(batch_size=8),
        logit_store=splits / "store",
        output=splits / "label",
        windows=WINDOWS,
    )
    student = build_student(teacher, 2)
    phase = {"objective": "distill", "epochs": 3, "lr": 5e-3}
    distillation = Distill.model_validate({"order": ["fit"], "phases": {"fit": phase}, "terms": TERMS})
    lessons = Lessons(splits / "label", distillation, teacher, [0, 1])
    history = splits / "student/history.jsonl"
    trained = train(student, tokenizer, splits, history, {"objective": "distill", "epochs": 6}, lessons=lessons)
    (told,) = json.loads((splits / "student/phases.json").read_text())
    rows = [given for seed, count in ((0, 40), (1, 10)) for given, _ in sample(kind, count, seed, 20)]
    assert told["rows"] == sum(map(len, task.windows(tokenizer, rows, READING)))  # the pool's, too
    losses = [line["loss"] for line in map(json.loads, history.read_text().splitlines()) if "loss" in line]
    assert losses[-1] < losses[0]
    lora = {"trainable": {"lora": {"r": 2}}, "epochs": 1}
    tuned = train(trained, tokenizer, splits, splits / "tuned/history.jsonl", lora)
    expected = predict_rows(tuned, tokenizer, rows, reading=READING)
    for one, other in zip(predict_rows(merged(tuned), tokenizer, rows, reading=READING), expected, strict=True):
        assert np.allclose(one, other, atol=1e-4)


class Killed(Exception):
    """What stands for a process that is killed."""


@pytest.mark.parametrize("kind", LABELS)
def test_a_resumed_run_ends_in_the_same_weights_bit_for_bit(
    kind: str, tiny_encoder: Path, splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(name: str, **more: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        model, tokenizer = load_base(tiny_encoder, LABELS[kind], task=TASKS[kind])
        found = train(model, tokenizer, splits, splits / name / "history.jsonl", {"batch_size": 2}, **more)
        return dict(found.state_dict())

    expected = weights("whole")
    keep = {"checkpoints": splits / "checkpoints", "checkpoint_every": 10}
    original = PhaseCheckpoints.keep

    def once(self: PhaseCheckpoints, checkpoint: Path) -> None:
        original(self, checkpoint)
        if checkpoint.name.endswith("-20"):
            raise Killed

    monkeypatch.setattr(PhaseCheckpoints, "keep", once)
    with pytest.raises(Killed):
        weights("resumed", **keep)
    monkeypatch.undo()
    found = weights("resumed", **keep)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (splits / "resumed/history.jsonl").read_text() == (splits / "whole/history.jsonl").read_text()


@pytest.mark.parametrize("kind", LABELS)
def test_frozen_layers_are_computed_once_with_the_same_result(
    kind: str, tiny_encoder: Path, splits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def weights(gigabytes: float) -> dict[str, torch.Tensor]:
        runtime = Runtime(threads=1, reuse_gb=gigabytes)
        torch.manual_seed(1)
        model, tokenizer = load_base(tiny_encoder, LABELS[kind], task=TASKS[kind])
        phase = {"trainable": {"last_layers": 1}, "freeze_embeddings": True}
        found = train(model, tokenizer, splits, splits / f"{gigabytes}/history.jsonl", phase, runtime=runtime)
        return {name: value.clone() for name, value in found.state_dict().items()}

    with_reuse = weights(1.0)
    assert "times as fast" in capsys.readouterr().out
    without = weights(0.0)
    assert all(torch.allclose(with_reuse[name], value, atol=1e-4) for name, value in without.items())


@pytest.mark.parametrize("kind", LABELS)
def test_class_weights_are_refused_where_there_are_no_classes_to_weight(
    kind: str, tiny_encoder: Path, splits: Path
) -> None:
    model, tokenizer = load_base(tiny_encoder, LABELS[kind], task=TASKS[kind])
    phase = {"class_weights": "balanced", "epochs": 1}
    if TASKS[kind].takes_class_weights:
        train(model, tokenizer, splits, splits / "history.jsonl", phase)
        return
    with pytest.raises(UserError, match=f"class_weights: the loss of {kind} has no classes to weight"):
        train(model, tokenizer, splits, splits / "history.jsonl", phase)


def test_stored_logits_are_known_by_the_code_of_their_task(tmp_path: Path) -> None:
    keys = {teacher_key(tmp_path, {}, task) for task in TASKS.values()}
    assert len(keys) == len(TASKS)
    assert teacher_key(tmp_path, {}, TASKS["regression"]) in keys
