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
from components.ml.models import load_base, save
from components.ml.phases import run_phases
from components.params import Phase, Runtime

LABELS = ["negative", "positive"]
RUNTIME = Runtime(threads=1)


def train(encoder: Path, splits: Path, history: Path, phases: dict[str, dict[str, Any]]) -> PreTrainedModel:
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
        splits=[(splits / "train", None)],
        validation=splits / "validation",
        history=history,
        seed=3,
        runtime=RUNTIME,
        max_length=32,
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
    (tmp_path / "train").symlink_to(tiny_splits / "train")
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
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_a_diverged_model_is_not_saved(tiny_encoder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_base(tiny_encoder, LABELS)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="diverged"):
        save(model, tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()
