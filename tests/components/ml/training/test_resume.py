"""Training that was interrupted and resumed ends in the same weights and history, for each kind of phase."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from components.ml.adapters.peft_models import can_merge, merged
from components.ml.models.storage import load_base
from components.ml.rows.tokenised import Splits
from components.ml.tasks.task import Reading
from components.ml.teaching.lessons import Lessons
from components.ml.training import checkpoints as checkpoints_module
from components.ml.training import trainer as trainer_module
from components.ml.training.checkpoints import PhaseCheckpoints
from components.ml.training.phases import run_phases
from components.ml.training.trainer import PhaseTrainer
from components.params.phases import Distillation, Phase
from components.params.stages import Runtime

LABELS: dict[str, Any] = {"objective": "labels", "epochs": 2, "lr": 5e-3, "batch_size": 8}
DISTILL = LABELS | {"objective": "distill"}
LORA = {"lora": {"r": 2, "targets": ["query", "value"], "dropout": 0.1}}
TERMS = {"hidden": {"weight": 1.0}, "relation": {"heads": 2}}
KINDS: dict[str, list[dict[str, Any]]] = {
    "labels": [LABELS],
    "mlm": [LABELS | {"objective": "mlm"}],
    "mlm of whole words, then labels": [LABELS | {"objective": "mlm", "mask": {"whole_words": True}}, LABELS],
    "distill": [DISTILL],
    "distill with terms": [DISTILL | {"dropout": 0.0}],
    "head, then lower layers frozen": [LABELS | {"trainable": "head"}, LABELS | {"trainable": {"last_layers": 1}}],
    "pattern": [LABELS | {"trainable": {"pattern": "query"}}],
    "gradual": [LABELS | {"trainable": {"gradual": {"epochs_per_layer": 0.5}}}],
    "layer_lr_decay": [LABELS | {"trainable": {"layer_lr_decay": 0.8}, "freeze_embeddings": True}],
    "lora, then lora": [LABELS | {"trainable": LORA}, LABELS | {"trainable": LORA}],
    "ia3": [LABELS | {"trainable": {"ia3": {}}}],
    "prompt tuning": [LABELS | {"trainable": {"prompt_tuning": {"tokens": 3}}}],
    "several tasks": [LABELS | {"tasks": ["target", "topics", "entities"], "accumulate": 2, "batch_size": 4}],
    "by tokens": [LABELS | {"batch_tokens": 96, "class_weights": "balanced", "label_smoothing": 0.1}],
    "plateau": [LABELS | {"schedule": "reduce_on_plateau", "optimizer": "adamw_torch"}],
    "early stopping": [LABELS | {"epochs": 4, "early_stopping": {"metric": "accuracy", "patience": 1}}],
    "cosine by another optimiser": [LABELS | {"optimizer": "adafactor", "schedule": "cosine"}],
    "bfloat16": [LABELS | {"dtype": "bfloat16"}],
}
TEN_STEPS_AN_EPOCH: dict[str, list[dict[str, Any]]] = {
    "part of an epoch": [LABELS | {"epochs": 1.4, "batch_size": 12, "schedule": "constant"}],
    "whole epochs": [LABELS | {"batch_size": 12}],
    "stopped early": [
        LABELS | {"epochs": 9, "batch_size": 12, "lr": 3e-2, "early_stopping": {"metric": "loss", "patience": 1}}
    ],
}
"""A checkpoint is due where an epoch ends."""


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory, tiny_splits: Path, tiny_tasks: Path) -> Path:
    """The tiny splits, with two other tasks and teacher logits beside them."""
    folder = tmp_path_factory.mktemp("splits")
    for name in ("train", "unlabelled", "validation"):
        (folder / name).symlink_to(tiny_splits / name)
    (folder / "tasks").symlink_to(tiny_tasks)
    for name in ("train", "unlabelled"):
        rows = pq.read_table(tiny_splits / name)["row"]
        logits = np.random.default_rng(0).normal(size=(len(rows), 2)).astype(np.float32)
        confidence = pa.array(1 / (1 + np.exp(-np.abs(logits[:, 0] - logits[:, 1]))), pa.float32())
        (folder / "label" / name).mkdir(parents=True)
        table = pa.table(
            {"row": rows, "logits": pa.array(logits.tolist(), pa.list_(pa.float32())), "confidence": confidence}
        )
        pq.write_table(table, folder / "label" / name / "part-00000.parquet")
    return folder


class Killed(Exception):
    """Stands for the process's end."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """A function that makes training end after so many micro-batches; None lets it go on to its end."""
    original = PhaseTrainer.training_step

    def limit(batches: int | None) -> None:
        left = [batches]

        def step(self: PhaseTrainer, *arguments: Any) -> torch.Tensor:
            if left[0] == 0:
                raise Killed
            left[0] = None if left[0] is None else left[0] - 1
            return original(self, *arguments)

        monkeypatch.setattr(PhaseTrainer, "training_step", step)

    return limit


def train(kind: str, encoder: Path, splits: Path, output: Path, checkpoints: Path | None) -> Any:
    output.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model, tokenizer = load_base(encoder, ["negative", "positive"])
    teacher = load_base(encoder, ["negative", "positive"])[0].eval() if "terms" in kind else None
    terms = TERMS if "terms" in kind else {}
    settings = Distillation.model_validate({"order": [], "terms": terms})
    return run_phases(
        model,
        tokenizer,
        [(f"p{index}", Phase.model_validate(phase)) for index, phase in enumerate((KINDS | TEN_STEPS_AN_EPOCH)[kind])],
        splits=Splits(*(splits / name for name in ("train", "unlabelled", "validation", "tasks"))),
        history=output / "history.jsonl",
        seed=3,
        runtime=Runtime(threads=1),
        reading=Reading(32),
        lessons=Lessons(splits / "label", settings, teacher),
        base_folder=encoder,
        checkpoints=checkpoints,
        checkpoint_every=10,
    )


def weights(trained: Any) -> dict[str, torch.Tensor]:
    plain: PreTrainedModel = merged(trained) if can_merge(trained) else trained
    return {name: value.clone() for name, value in plain.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_in_the_same_weights_and_history(
    kind: str, tiny_encoder: Path, splits: Path, tmp_path: Path, killed_after: Any
) -> None:
    whole = weights(train(kind, tiny_encoder, splits, tmp_path / "whole", None))
    for _ in range(2):  # after a checkpoint, then after one more in the next epoch or phase
        killed_after(13 * KINDS[kind][0].get("accumulate", 1))
        with pytest.raises(Killed):
            train(kind, tiny_encoder, splits, tmp_path / "killed", tmp_path / "checkpoints")
    killed_after(None)
    resumed = weights(train(kind, tiny_encoder, splits, tmp_path / "resumed", tmp_path / "checkpoints"))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    for name in ("history.jsonl", "phases.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


@pytest.mark.parametrize("kind", TEN_STEPS_AN_EPOCH)
@pytest.mark.parametrize(
    "where", [(PhaseTrainer, "evaluate"), (PhaseCheckpoints, "finish")], ids=["evaluate", "finish"]
)
def test_a_run_killed_where_an_epoch_or_the_phase_ends_resumes_to_the_same_end(
    kind: str,
    where: tuple[type, str],
    tiny_encoder: Path,
    splits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = weights(train(kind, tiny_encoder, splits, tmp_path / "whole", None))
    for kills in range(2):  # at the first validation, then at the second
        original, left = getattr(where[0], where[1]), [kills]

        def killed(self: Any, *arguments: Any, original: Any = original, left: list[int] = left, **named: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return original(self, *arguments, **named)

        with monkeypatch.context() as patch, contextlib.suppress(Killed):  # some finish but once
            patch.setattr(where[0], where[1], killed)
            train(kind, tiny_encoder, splits, tmp_path / "killed", tmp_path / "checkpoints")
    resumed = weights(train(kind, tiny_encoder, splits, tmp_path / "resumed", tmp_path / "checkpoints"))
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    for name in ("history.jsonl", "phases.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def test_checkpoints_are_really_used(tiny_encoder: Path, splits: Path, tmp_path: Path, killed_after: Any) -> None:
    killed_after(13)
    with pytest.raises(Killed):
        train("labels", tiny_encoder, splits, tmp_path / "killed", tmp_path / "checkpoints")
    killed_after(20)  # of 30 steps, 10 are done
    train("labels", tiny_encoder, splits, tmp_path / "resumed", tmp_path / "checkpoints")
    killed_after(0)  # all of them
    train("labels", tiny_encoder, splits, tmp_path / "again", tmp_path / "checkpoints")


class _Failing:
    """Fails at the second call and works at the others."""

    def __init__(self, original: Any, error: Exception) -> None:
        self.original, self.error, self.calls = original, error, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return self.original(*arguments, **named)


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (torch, "save", RuntimeError("unexpected pos 64 vs 0")),
        (checkpoints_module, "seal", OSError(28, "No space left on device")),
        (trainer_module, "save_file", SafetensorError("No space left on device (os error 28)")),
    ],
    ids=["optimizer", "seal", "weights"],
)
def test_a_checkpoint_that_cannot_be_written_is_given_up_and_training_goes_on(
    owner: Any,
    name: str,
    error: Exception,
    tiny_encoder: Path,
    splits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_after: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = weights(train("labels", tiny_encoder, splits, tmp_path / "whole", None))
    monkeypatch.setattr(owner, name, _Failing(getattr(owner, name), error))
    killed_after(28)
    with pytest.raises(Killed):
        train("labels", tiny_encoder, splits, tmp_path / "killed", tmp_path / "checkpoints")
    assert f"could not be written, training goes on without it: {error!s}" in capsys.readouterr().out
    assert [path.parent.name for path in tmp_path.glob("checkpoints/*/*/whole.json")] != []
    killed_after(None)
    resumed = weights(train("labels", tiny_encoder, splits, tmp_path / "resumed", tmp_path / "checkpoints"))
    assert "resumed at step" in capsys.readouterr().out
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_other_parameters_is_refused_before_any_is_taken(
    tiny_encoder: Path, splits: Path, tmp_path: Path, killed_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an edit that was accepted, though it changed what trains."""
    killed_after(13)
    with pytest.raises(Killed):
        train("ia3", tiny_encoder, splits, tmp_path / "killed", tmp_path / "checkpoints")
    killed_after(None)
    whole = weights(train("labels", tiny_encoder, splits, tmp_path / "whole", None))
    resumed = weights(train("labels", tiny_encoder, splits, tmp_path / "resumed", tmp_path / "checkpoints"))
    assert "was written by code with other parameters; it is removed" in capsys.readouterr().out
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_last_two_checkpoints_are_kept_and_the_history_tells_how_many_rows_there_are(
    tiny_encoder: Path, splits: Path, tmp_path: Path, killed_after: Any
) -> None:
    killed_after(28)
    with pytest.raises(Killed):
        train("labels", tiny_encoder, splits, tmp_path / "killed", tmp_path / "checkpoints")
    kept = sorted(path.parent.name for path in tmp_path.glob("checkpoints/*/*/whole.json"))
    assert kept == ["checkpoint-10", "checkpoint-20"]
    lines = (tmp_path / "killed/history.jsonl").read_text().splitlines()
    assert {json.loads(line)["rows"] for line in lines} == {120}


def test_a_torn_checkpoint_is_passed_over(tiny_encoder: Path, splits: Path, tmp_path: Path, killed_after: Any) -> None:
    whole = weights(train("labels", tiny_encoder, splits, tmp_path / "whole", None))
    killed_after(13)
    with pytest.raises(Killed):
        train("labels", tiny_encoder, splits, tmp_path / "killed", tmp_path / "checkpoints")
    (state,) = tmp_path.glob("checkpoints/*/checkpoint-10/trainer_state.json")
    state.write_text(state.read_text()[:100])
    killed_after(None)
    resumed = weights(train("labels", tiny_encoder, splits, tmp_path / "resumed", tmp_path / "checkpoints"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_checkpoints_deleted_during_training_do_not_change_the_result(
    tiny_encoder: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(train("early stopping", tiny_encoder, splits, tmp_path / "whole", None))
    original = PhaseTrainer.evaluate

    def evaluate(self: PhaseTrainer, *arguments: Any, **named: Any) -> dict[str, float]:
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        return original(self, *arguments, **named)

    def delete_again(self: PhaseTrainer, *arguments: Any, **named: Any) -> torch.Tensor:
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        return step(self, *arguments, **named)

    step = PhaseTrainer.training_step
    monkeypatch.setattr(PhaseTrainer, "evaluate", evaluate)
    monkeypatch.setattr(PhaseTrainer, "training_step", delete_again)
    again = weights(train("early stopping", tiny_encoder, splits, tmp_path / "again", tmp_path / "checkpoints"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_training_never_ends_in_the_last_weights_for_want_of_the_best(
    tiny_encoder: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PhaseTrainer.evaluate

    def evaluate(self: PhaseTrainer, *arguments: Any, **named: Any) -> dict[str, float]:
        assert self.best is not None
        self.best.unlink(missing_ok=True)
        return original(self, *arguments, **named)

    monkeypatch.setattr(PhaseTrainer, "evaluate", evaluate)
    with pytest.raises(RuntimeError, match="the best, are gone"):
        train("early stopping", tiny_encoder, splits, tmp_path / "again", None)
