"""Training through phases: what moves, what is recorded, and that accumulation changes nothing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from transformers import PreTrainedModel

from components.errors import UserError
from components.ml.models.scoring import predict_logits
from components.ml.models.storage import load_base, save
from components.ml.rows.tokenised import Splits
from components.ml.tasks.task import Reading
from components.ml.training.phases import run_phases
from components.params.phases import Phase
from components.params.stages import Runtime

LABELS = ["negative", "positive"]
RUNTIME = Runtime(threads=1)


def train(
    encoder: Path, splits: Path, history: Path, phases: dict[str, dict[str, Any]], runtime: Runtime = RUNTIME
) -> PreTrainedModel:
    torch.manual_seed(0)
    model, tokenizer = load_base(encoder, LABELS)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # so that micro-batches see what the full batch sees
    return run_phases(
        model,
        tokenizer,
        [(name, Phase.model_validate(phase)) for name, phase in phases.items()],
        splits=Splits(*(splits / name for name in ("train", "unlabelled", "validation", "tasks"))),
        history=history,
        seed=3,
        runtime=runtime,
        reading=Reading(32),
    )


def test_a_phase_learns(tiny_encoder: Path, tiny_splits: Path, tmp_path: Path) -> None:
    phase = {"objective": "labels", "epochs": 8, "lr": 5e-3}
    train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase})
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["eval_accuracy"] for line in lines if "eval_accuracy" in line][-1] >= 0.9


@pytest.mark.parametrize("accumulate", [4, 8])
def test_gradient_accumulation_gives_the_full_batchs_weights(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path, accumulate: int
) -> None:
    def weights(**batch: int) -> dict[str, torch.Tensor]:
        phase = {"objective": "labels", "epochs": 1, "lr": 1e-3, **batch}
        name = "-".join(map(str, batch.values()))
        return train(tiny_encoder, tiny_splits, tmp_path / name, {"general": phase}).state_dict()

    whole = weights(batch_size=40, accumulate=1)
    parts = weights(batch_size=40 // accumulate, accumulate=accumulate)
    assert all(torch.allclose(whole[name], parts[name], atol=2e-5) for name in whole)


def test_a_phase_trains_only_what_it_names(tiny_encoder: Path, tiny_splits: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = load_base(tiny_encoder, LABELS)[0].state_dict()
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-2, "trainable": {"last_layers": 1}}
    after = train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"specific": phase}).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(any(part in name for part in ("layer.2", "pooler", "classifier")) for name in moved)


def test_steps_count_on_across_phases(tiny_encoder: Path, tiny_splits: Path, tmp_path: Path) -> None:
    phases = {
        "general": {"objective": "labels", "epochs": 1, "lr": 1e-3},
        "specific": {"objective": "labels", "on": "b", "epochs": 2, "lr": 1e-3, "trainable": "head"},
    }
    train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", phases)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert steps[-1] == lines[0]["total_steps"] == 4 + 2 * 2
    assert [line["phase"] for line in lines] == sorted(line["phase"] for line in lines)


def test_the_history_holds_no_times(tiny_encoder: Path, tiny_splits: Path, tmp_path: Path) -> None:
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3}
    train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase})
    text = (tmp_path / "history.jsonl").read_text()
    assert "runtime" not in text
    assert "per_second" not in text


def only_group(split: Path, group: str, folder: Path) -> Path:
    """A copy of a split with the rows of one group."""
    folder.mkdir(parents=True)
    table = pq.read_table(split)
    pq.write_table(table.filter(pc.equal(table["group"], group)), folder / "part-00000.parquet")
    return folder


@pytest.mark.parametrize("on", ["nowhere", ["a", "nowhere"]])
def test_every_group_that_a_phase_names_needs_training_rows(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path, on: str | list[str]
) -> None:
    phase = {"objective": "labels", "on": on, "epochs": 1, "lr": 1e-3}
    with pytest.raises(UserError, match=r"'specific' has no training rows of the group nowhere\.") as caught:
        train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"specific": phase})
    assert "`on: all`" in caught.value.remedy


def test_validation_rows_of_some_of_a_phases_groups_are_enough(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path
) -> None:
    only_group(tiny_splits / "validation", "a", tmp_path / "validation")
    for name in ("train", "unlabelled"):
        (tmp_path / name).symlink_to(tiny_splits / name)
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3}
    train(tiny_encoder, tmp_path, tmp_path / "history.jsonl", {"both": phase | {"on": ["a", "b"]}})
    with pytest.raises(UserError, match=r"'one' has no validation rows of the group b\.") as caught:
        train(tiny_encoder, tmp_path, tmp_path / "history.jsonl", {"one": phase | {"on": "b"}})
    assert "data.split.validation" in caught.value.remedy


def test_scratch_files_lie_beside_the_history_and_leave_nothing(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))  # the system's folder, of no use
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3}
    train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "phases.json"]


def test_a_diverged_model_is_not_saved(tiny_encoder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_base(tiny_encoder, LABELS)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="diverged"):
        save(model, tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def history(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_epochs_weights_are_kept_and_the_phase_stops_early(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = {"metric": "loss", "patience": 2}
    phase = {"objective": "labels", "epochs": 30, "lr": 2e-2, "schedule": "constant", "early_stopping": stopping}
    model = train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase})
    losses = {line["step"]: line["eval_loss"] for line in history(tmp_path / "history.jsonl") if "eval_loss" in line}
    (told,) = json.loads((tmp_path / "phases.json").read_text())
    assert told["best_step"] == min(losses, key=lambda step: losses[step])
    assert told["best"] == {"loss": min(losses.values())}
    assert max(losses) == told["steps"] == told["best_step"] + 2 * 4 < 30 * 4  # two epochs of four steps later
    table = pq.read_table(tiny_splits / "validation")
    tokenizer = load_base(tiny_encoder, LABELS)[1]
    logits = predict_logits(model, tokenizer, table["text"].to_pylist(), max_length=32)
    found = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.tensor(table["label"].to_pylist()))
    assert float(found) == pytest.approx(min(losses.values()), abs=1e-4)
    assert "kept the weights of step" in capsys.readouterr().out


def test_masked_language_modelling_learns_the_texts_and_leaves_the_classifiers_head_alone(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    before = load_base(tiny_encoder, LABELS)[0].state_dict()
    phase = {"objective": "mlm", "epochs": 6, "lr": 1e-2, "mask": {"probability": 0.3}}
    model = train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"adapt": phase})
    losses = [line["eval_loss"] for line in history(tmp_path / "history.jsonl") if "eval_loss" in line]
    assert losses[-1] < losses[0]
    (told,) = json.loads((tmp_path / "phases.json").read_text())
    assert told["rows"] == 120 + 30  # the pool has no labels, but it has texts
    after = model.state_dict()
    assert torch.equal(before["classifier.weight"], after["classifier.weight"])
    assert not torch.equal(
        before["bert.encoder.layer.0.output.dense.weight"], after["bert.encoder.layer.0.output.dense.weight"]
    )
    assert before.keys() == after.keys()


def test_layers_further_down_move_less_with_falling_learning_rates(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    before = load_base(tiny_encoder, LABELS)[0].state_dict()
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3, "trainable": {"layer_lr_decay": 0.1}, "weight_decay": 0.0}
    after = train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase}).state_dict()
    name = "bert.encoder.layer.{}.output.dense.weight"
    moved = [float((after[name.format(i)] - before[name.format(i)]).abs().mean()) for i in range(3)]
    assert moved[0] < 0.3 * moved[1] < 0.3 * 0.3 * moved[2]  # AdamW's steps are as long as the learning rate


def test_gradual_thawing_moves_what_is_thawed_and_nothing_else(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    before = load_base(tiny_encoder, LABELS)[0].state_dict()
    gradual = {"gradual": {"epochs_per_layer": 1}}
    phase = {"objective": "labels", "epochs": 2, "lr": 1e-2, "trainable": gradual}
    after = train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase}).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("layer.2" in name for name in moved)
    assert not any("layer.1" in name or "layer.0" in name or "embeddings" in name for name in moved)


def test_an_optimiser_that_needs_a_package_is_refused_with_its_name(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path
) -> None:
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3, "optimizer": "galore_adamw"}
    with pytest.raises(UserError, match="optimizer: 'galore_adamw' can't be used here"):
        train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase})


def test_weights_for_other_classes_are_refused(tiny_encoder: Path, tiny_splits: Path, tmp_path: Path) -> None:
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3, "class_weights": {"good": 1.0, "bad": 2.0}}
    with pytest.raises(UserError, match=r"expected a weight for each of negative, positive, got good, bad"):
        train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", {"general": phase})


def test_frozen_layers_are_computed_once_with_the_same_result(
    tiny_encoder: Path, tiny_splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phase = {"objective": "labels", "epochs": 3, "lr": 1e-2, "trainable": {"last_layers": 1}}

    def weights(reuse_gb: float) -> dict[str, torch.Tensor]:
        runtime = Runtime(threads=1, reuse_gb=reuse_gb)
        trained = train(tiny_encoder, tiny_splits, tmp_path / f"{reuse_gb}.jsonl", {"p": phase}, runtime)
        return {name: value.clone() for name, value in trained.state_dict().items()}

    with_reuse = weights(1.0)
    assert "times as fast" in capsys.readouterr().out
    without = weights(0.0)
    assert "aren't reused" in capsys.readouterr().out
    assert all(torch.allclose(with_reuse[name], without[name], atol=1e-4) for name in without)


def test_other_tasks_heads_are_dropped_and_every_task_is_validated(
    tiny_encoder: Path, tiny_splits: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    splits = tmp_path / "splits"
    splits.mkdir()
    for name in ("train", "unlabelled", "validation"):
        (splits / name).symlink_to(tiny_splits / name)
    (splits / "tasks").symlink_to(tiny_tasks)
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3, "tasks": ["target", "topics", "entities"]}
    model = train(tiny_encoder, splits, tmp_path / "history.jsonl", {"together": phase})
    assert model.state_dict().keys() == load_base(tiny_encoder, LABELS)[0].state_dict().keys()
    (line,) = [line for line in history(tmp_path / "history.jsonl") if "eval_loss" in line]
    measured = {name.removeprefix("eval_") for name in line if name.startswith("eval_")}
    assert {"accuracy", "topics/accuracy", "entities/macro_f1", "mean/accuracy", "mean/loss"} <= measured
    mean = (line["eval_accuracy"] + line["eval_topics/accuracy"] + line["eval_entities/accuracy"]) / 3
    assert line["eval_mean/accuracy"] == pytest.approx(mean)


def test_nothing_left_to_train_is_an_error(tiny_encoder: Path, tiny_splits: Path, tmp_path: Path) -> None:
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3, "freeze_embeddings": True}
    chosen = {"general": phase | {"trainable": {"pattern": "embeddings"}}}
    with pytest.raises(UserError, match="nothing is left to train"):
        train(tiny_encoder, tiny_splits, tmp_path / "history.jsonl", chosen)


def test_a_phase_may_prepare_the_encoder_on_other_tasks_alone(
    tiny_encoder: Path, tiny_splits: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    splits = tmp_path / "splits"
    splits.mkdir()
    for name in ("train", "unlabelled", "validation"):
        (splits / name).symlink_to(tiny_splits / name)
    (splits / "tasks").symlink_to(tiny_tasks)
    torch.manual_seed(0)
    before = load_base(tiny_encoder, LABELS)[0].state_dict()
    phase = {"objective": "labels", "epochs": 1, "lr": 1e-3, "tasks": ["entities", "topics"], "dropout": 0.0}
    after = train(tiny_encoder, splits, tmp_path / "history.jsonl", {"first": phase}).state_dict()
    assert torch.equal(before["classifier.weight"], after["classifier.weight"])
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(before[name], after[name])
    (line,) = [line for line in history(tmp_path / "history.jsonl") if "eval_loss" in line]
    assert {"eval_accuracy", "eval_topics/accuracy", "eval_mean/accuracy"} <= line.keys()
