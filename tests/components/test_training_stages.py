"""Teacher, distill, control and finetune on a tiny model, each called as its stage calls it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from components import control, distill, finetune, teacher
from components.errors import UserError
from components.ml.adapters import saving
from components.ml.models.scoring import load_classifier, load_plain, predict_logits
from components.ml.statistics.metrics import softmax
from components.params.phases import Phase
from components.params.stages import Distill, Finetune, Runtime, Student, Teacher

COMMON: dict[str, Any] = {"seed": 5, "runtime": Runtime(threads=1), "max_length": 32}
GENERAL = {"objective": "labels", "epochs": 4, "lr": 5e-3}
DISTILL = Distill.model_validate(
    {
        "student": {"layers": 2},
        "order": ["distill"],
        "phases": {"distill": {"objective": "distill", "epochs": 3, "lr": 5e-3}},
    }
)
LORA = {"lora": {"r": 2, "alpha": 4, "dropout": 0.1, "targets": ["query", "value"]}}
SPECIFIC = {"objective": "labels", "on": "a", "epochs": 2, "lr": 1e-2, "trainable": LORA}


def rows_of(splits: Path) -> dict[str, Path]:
    """The inputs that every training stage has."""
    return {name: splits / name for name in ("train", "unlabelled", "validation", "tasks")}


def train_teacher(splits: Path, base: Path, output: Path, order: list[str] | None = None, **changes: Any) -> Path:
    output.mkdir(parents=True)
    order = ["general"] if order is None else order
    phases = {"general": GENERAL | changes.pop("general", {})}
    settings = Teacher.model_validate({"base": "data/base_model", "order": order, "phases": phases})
    schema = splits / "schema.json"
    teacher.run(**rows_of(splits), schema=schema, base_model=base, settings=settings, output=output, **COMMON | changes)
    return output


def write_logits(splits: Path, teacher_model: Path, output: Path) -> Path:
    """What the stage `label` leaves."""
    model, tokenizer = load_classifier(teacher_model)
    for split in ("train", "unlabelled"):
        rows = pq.read_table(splits / split)
        logits = predict_logits(model, tokenizer, rows["text"].to_pylist(), max_length=32)
        confidence = softmax(logits).max(axis=-1).astype(np.float32)
        (output / split).mkdir(parents=True)
        table = pa.table({"row": rows["row"], "logits": list(logits), "confidence": confidence})
        pq.write_table(table, output / split / "part-00000.parquet")
    return output


def run_distill(splits: Path, made: Mapping[str, Path], output: Path, settings: Distill, **changes: Any) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    inputs = {"teacher_logits": made["label"], "teacher": made["teacher"] / "model", "folders": splits / "folders.json"}
    given = COMMON | {"models": {}} | changes
    distill.run(**rows_of(splits), **inputs, settings=settings, output=output, **given)
    return output


def run_control(splits: Path, made: Mapping[str, Path], output: Path, settings: Distill, **changes: Any) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    parts = {"student": settings.student, "order": settings.order, "phases": settings.phases}
    inputs = {"teacher": made["teacher"] / "model", "folders": splits / "folders.json"}
    control.run(**rows_of(splits), **inputs, **parts, output=output, **COMMON | {"models": {}} | changes)
    return output


def run_finetune(
    splits: Path, made: Mapping[str, Path], output: Path, common: Mapping[str, Any] | None = None, **settings: Any
) -> Path:
    """The section `finetune` is given by its keys."""
    output.mkdir(parents=True, exist_ok=True)
    chosen = Finetune.model_validate({"group": "a", "order": ["specific"], "phases": {"specific": SPECIFIC}} | settings)
    inputs = {"teacher_logits": made["label"], "teacher": made["teacher"] / "model"}
    inputs |= {"student": made["distill"] / "model"}
    finetune.run(**rows_of(splits), **inputs, settings=chosen, output=output, **COMMON | dict(common or {}))
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, tiny_splits: Path) -> Mapping[str, Path]:
    """The outputs of every stage, by name."""
    root = tmp_path_factory.mktemp("stages")
    folders = {"teacher": train_teacher(tiny_splits, tiny_encoder, root / "teacher")}
    folders["label"] = write_logits(tiny_splits, folders["teacher"] / "model", root / "label")
    folders["distill"] = run_distill(tiny_splits, folders, root / "distill", DISTILL)
    folders["control"] = run_control(tiny_splits, folders, root / "control", DISTILL)
    folders["finetune"] = run_finetune(tiny_splits, folders, root / "finetune")
    return folders


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_training_twice_gives_the_same_weights_bit_for_bit(
    made: Mapping[str, Path], tiny_splits: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    again = train_teacher(tiny_splits, tiny_encoder, tmp_path / "again")
    assert weights(again) == weights(made["teacher"])
    assert (again / "history.jsonl").read_bytes() == (made["teacher"] / "history.jsonl").read_bytes()


def test_another_seed_gives_other_weights(
    made: Mapping[str, Path], tiny_splits: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    other = train_teacher(tiny_splits, tiny_encoder, tmp_path / "other", seed=6)
    assert weights(other) != weights(made["teacher"])


def test_a_tuned_teacher_is_taken_as_it_is(made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path) -> None:
    taken = train_teacher(tiny_splits, made["teacher"] / "model", tmp_path / "taken", order=[])
    assert weights(taken) == weights(made["teacher"])
    assert (taken / "history.jsonl").read_text() == ""
    assert json.loads((taken / "phases.json").read_text()) == []


def test_a_tuned_teacher_for_other_labels_is_refused(
    made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path
) -> None:
    splits = tmp_path / "splits"
    shutil.copytree(tiny_splits, splits)
    (splits / "schema.json").write_text('{"labels": ["bad", "good"], "groups": ["a", "b"]}')
    with pytest.raises(UserError, match="was tuned for the labels"):
        train_teacher(splits, made["teacher"] / "model", tmp_path / "taken", order=[])


def test_a_base_model_without_a_head_is_no_tuned_teacher(tiny_splits: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classifier"):
        train_teacher(tiny_splits, tiny_encoder, tmp_path / "taken", order=[])


def test_a_student_has_fewer_layers_and_the_label_names(made: Mapping[str, Path]) -> None:
    for stage in ("distill", "control", "finetune"):
        config = json.loads((made[stage] / "model" / "config.json").read_text())
        assert config["num_hidden_layers"] == 2
        assert config["id2label"] == {"0": "negative", "1": "positive"}


def test_distillation_uses_the_pool_and_the_control_does_not(made: Mapping[str, Path]) -> None:
    def total(stage: str) -> int:
        return int(json.loads((made[stage] / "history.jsonl").read_text().splitlines()[0])["total_steps"])

    assert total("distill") == 3 * 5  # 150 rows in batches of 32
    assert total("control") == 3 * 4  # 120 rows


def test_the_teacher_is_not_changed_by_its_students(made: Mapping[str, Path], tiny_splits: Path) -> None:
    model, _ = load_classifier(made["teacher"] / "model")
    student, _ = load_classifier(made["distill"] / "model")
    assert not torch.equal(model.classifier.weight, student.classifier.weight)


def test_adapter_and_merged_model_agree(made: Mapping[str, Path]) -> None:
    base, tokenizer = load_classifier(made["distill"] / "model")
    adapted = PeftModel.from_pretrained(base, str(made["finetune"] / "adapter")).eval()
    merged, _ = load_classifier(made["finetune"] / "model")
    texts = ["good phone", "这部电影很差", "a lovely story"]
    one, other = (predict_logits(model, tokenizer, texts, max_length=32) for model in (adapted, merged))
    assert np.allclose(one, other, atol=1e-5)


def test_the_head_is_trained_and_saved_with_the_adapter(made: Mapping[str, Path]) -> None:
    student, _ = load_classifier(made["distill"] / "model")
    tuned, _ = load_classifier(made["finetune"] / "model")
    assert not torch.equal(student.classifier.weight, tuned.classifier.weight)
    saved = load_file(made["finetune"] / "adapter" / "adapter_model.safetensors")
    head = next(value for name, value in saved.items() if name.endswith("classifier.weight"))
    assert torch.equal(head, tuned.classifier.weight)


def test_lora_leaves_all_but_its_targets_and_the_head_alone(made: Mapping[str, Path]) -> None:
    before = load_file(made["distill"] / "model" / "model.safetensors")
    after = load_file(made["finetune"] / "model" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(any(part in name for part in ("query.weight", "value.weight", "classifier")) for name in moved)


def test_a_fine_tune_for_all_groups_trains_on_every_row(
    made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path
) -> None:
    phase = SPECIFIC | {"on": "all", "epochs": 1}
    run_finetune(tiny_splits, made, tmp_path, group="all", phases={"specific": phase})
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[0])["total_steps"] == 4  # 120 rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "history.jsonl", "model", "phases.json"]


@pytest.mark.parametrize("trainable", ["all", SPECIFIC["trainable"]])
def test_an_adapter_after_other_phases_is_kept_with_the_model_it_belongs_to(
    made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path, trainable: Any
) -> None:
    first = SPECIFIC | {"on": "all", "epochs": 1, "trainable": trainable}
    phases = {"general": first, "specific": SPECIFIC}
    order = ["general", "specific"]
    output = run_finetune(tiny_splits, made, tmp_path / "finetune.partial", order=order, phases=phases)
    named = json.loads((output / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == (tmp_path / "finetune" / "base").as_posix()
    base, tokenizer = load_classifier(output / "base")
    adapted = PeftModel.from_pretrained(base, str(output / "adapter")).eval()
    merged, _ = load_classifier(output / "model")
    one, other = (predict_logits(model, tokenizer, ["good phone"], max_length=32) for model in (adapted, merged))
    assert np.allclose(one, other, atol=1e-5)


def test_a_tuned_teacher_needs_validation_rows_to_be_checked_on(
    made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path
) -> None:
    splits = tmp_path / "splits"
    shutil.copytree(tiny_splits, splits)
    shard = splits / "validation" / "part-00000.parquet"
    pq.write_table(pq.read_table(shard).slice(0, 0), shard)
    with pytest.raises(UserError, match="validation has no rows"):
        train_teacher(splits, made["teacher"] / "model", tmp_path / "taken", order=[])


def test_an_adapter_that_lost_its_head_is_noticed(
    made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_head(model: PeftModel, folder: Path) -> None:
        model.save_pretrained(str(folder))
        path = folder / "adapter_model.safetensors"
        save_file({name: value * ("classifier" not in name) for name, value in load_file(path).items()}, path)

    monkeypatch.setattr(saving, "save_adapter", lose_head)
    with pytest.raises(RuntimeError, match="adapter reads back with logits that differ"):
        run_finetune(tiny_splits, made, tmp_path)


def test_prompts_stay_beside_the_model_that_they_belong_to(
    made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path
) -> None:
    phase = SPECIFIC | {"trainable": {"prompt_tuning": {"tokens": 3}}}
    output = run_finetune(tiny_splits, made, tmp_path / "finetune.partial", phases={"specific": phase})
    assert sorted(path.name for path in output.iterdir()) == ["history.jsonl", "model", "phases.json"]
    assert weights(output) == weights(made["distill"])
    named = json.loads((output / "model/adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == (tmp_path / "finetune/model").as_posix()
    plain, tokenizer = load_plain(made["distill"] / "model")
    prompted, _ = load_classifier(output / "model")
    one, other = (predict_logits(model, tokenizer, ["good phone"], max_length=32) for model in (plain, prompted))
    assert np.abs(one - other).max() > 1e-3


def test_a_hybrid_fine_tune_learns_from_its_own_groups_pool(
    made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path
) -> None:
    phase = SPECIFIC | {"objective": "distill", "trainable": "all", "epochs": 1}
    hybrid = run_finetune(tiny_splits, made, tmp_path / "hybrid", phases={"specific": phase})
    alone: dict[str, Any] = {"alpha": 0.0, "beta": 1.0, "pseudo_labels": {"kind": "none"}}
    labels = run_finetune(tiny_splits, made, tmp_path / "labels", phases={"specific": phase}, **alone)
    (told,) = json.loads((hybrid / "phases.json").read_text())
    assert told["objective"] == "distill"
    assert told["rows"] == 60 + 15  # of the group a, with and without a label
    assert weights(hybrid) != weights(labels)


def test_every_stage_tells_what_its_phases_trained(made: Mapping[str, Path]) -> None:
    for stage in ("teacher", "distill", "control", "finetune"):
        (told,) = json.loads((made[stage] / "phases.json").read_text())
        assert 0 < told["trainable_parameters"] <= told["parameters"]
        assert (told["trainable_parameters"] < told["parameters"]) == (stage == "finetune")
        assert told["rows"] == {"distill": 150, "finetune": 60}.get(stage, 120)


def test_a_student_may_be_another_pretrained_model_in_both_stages(
    made: Mapping[str, Path], tiny_splits: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    phase = DISTILL.phases["distill"].model_dump(exclude_unset=True) | {"epochs": 1}
    settings = Distill.model_validate(
        {"student": {"model": "other"}, "order": ["distill"], "phases": {"distill": phase}}
    )
    models = {"models": {"other": str(tiny_encoder)}}
    for stage, run in (("distill", run_distill), ("control", run_control)):
        output = run(tiny_splits, made, tmp_path / stage, settings, **models)
        config = json.loads((output / "model/config.json").read_text())
        assert (config["num_hidden_layers"], config["id2label"]["1"]) == (3, "positive")


def test_terms_look_into_the_teacher(made: Mapping[str, Path], tiny_splits: Path, tmp_path: Path) -> None:
    settings = DISTILL.model_dump(exclude_unset=True) | {"terms": {"hidden": {"weight": 1.0}}}
    output = run_distill(tiny_splits, made, tmp_path, Distill.model_validate(settings))
    assert weights(output) != weights(made["distill"])


def test_the_control_is_the_distilled_student_with_the_objective_labels(made: Mapping[str, Path]) -> None:
    phases = [json.loads(line)["phase"] for line in (made["control"] / "history.jsonl").read_text().splitlines()]
    assert set(phases) == {"distill"}
    assert Student(layers=2) == DISTILL.student
    assert Phase.model_validate(SPECIFIC).groups == ["a"]


def test_no_output_holds_a_pickle_or_a_path(made: Mapping[str, Path]) -> None:
    for stage, folder in made.items():
        for path in folder.rglob("*"):
            assert path.suffix not in (".bin", ".pt", ".pth", ".pkl"), (stage, path)
            # The adapter's config names the student as it was given: relative in a workspace.
            if path.suffix in (".json", ".jsonl") and path.name != "adapter_config.json":
                assert "/tmp" not in path.read_text(encoding="utf-8"), (stage, path)
