"""Pairs of texts through every stage that knows a model: teacher, label, distill, finetune, export, evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components import label
from components.evaluate import stage as evaluate
from components.export import stage as export
from components.ml.models.loading import load
from components.ml.models.scoring import load_classifier, predict_logits
from components.ml.rows.inputs import inputs_of
from components.params.export import Export
from components.params.stages import Bootstrap, Evaluate, Label, Runtime
from tests.components.test_training_stages import DISTILL, run_control, run_distill, run_finetune, train_teacher

RUNTIME = Runtime(threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, paired_splits: Path) -> Mapping[str, Path]:
    """The outputs of the stages, by name."""
    root = tmp_path_factory.mktemp("stages")
    folders = {"teacher": train_teacher(paired_splits, tiny_encoder, root / "teacher")}
    folders["label"] = root / "label"
    folders["label"].mkdir()
    label.run(
        **{name: paired_splits / name for name in ("train", "unlabelled", "validation")},
        judgements=root / "none",
        teacher=folders["teacher"] / "model",
        folders=root / "none",
        runtime=RUNTIME,
        max_length=32,
        models={},
        settings=Label(),
        logit_store=root / "store",
        output=folders["label"],
    )
    folders["distill"] = run_distill(paired_splits, folders, root / "distill", DISTILL)
    folders["control"] = run_control(paired_splits, folders, root / "control", DISTILL)
    folders["finetune"] = run_finetune(paired_splits, folders, root / "finetune")
    folders["export"] = root / "export"
    folders["export"].mkdir()
    export.run(
        **{name: paired_splits / name for name in ("train", "validation", "test")},
        lora=folders["finetune"] / "model",
        runtime=RUNTIME,
        max_length=32,
        settings=Export(tolerance=1.0),
        output=folders["export"],
    )
    return folders


def test_the_stored_logits_are_those_of_both_texts(made: Mapping[str, Path], paired_splits: Path) -> None:
    stored = pq.read_table(made["label"] / "train")["logits"].to_pylist()
    rows = pq.read_table(paired_splits / "train")
    teacher = load_classifier(made["teacher"] / "model")
    assert np.abs(stored - predict_logits(*teacher, inputs_of(rows), max_length=32)).max() < 1e-6
    assert np.abs(stored - predict_logits(*teacher, rows["text"].to_pylist(), max_length=32)).max() > 1e-5


@pytest.mark.parametrize("kind", ["onnx", "int8"])
def test_the_exported_files_read_pairs(made: Mapping[str, Path], paired_splits: Path, kind: str) -> None:
    import torch

    inputs = inputs_of(pq.read_table(paired_splits / "test"))
    expected = predict_logits(*load_classifier(made["finetune"] / "model"), inputs, max_length=32)
    exported = load(made["export"] / kind / "model", torch.device("cpu"))
    assert np.abs(predict_logits(*exported, inputs, max_length=32) - expected).max() < {"onnx": 1e-4, "int8": 1.0}[kind]


def test_all_models_are_compared_on_the_pairs(made: Mapping[str, Path], paired_splits: Path, tmp_path: Path) -> None:
    (tmp_path / "controls").mkdir()
    (tmp_path / "controls/controls.json").write_text('{"seed": 5, "seeds": []}')
    output = tmp_path / "evaluate"
    output.mkdir()
    evaluate.run(
        test=paired_splits / "test",
        teacher=made["teacher"],
        student=made["distill"],
        student_without_distillation=made["control"],
        lora=made["finetune"],
        controls=tmp_path / "controls",
        export=made["export"],
        runtime=RUNTIME,
        max_length=32,
        settings=Evaluate(bootstrap=Bootstrap(resamples=100)),
        target_group="a",
        output=output,
    )
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rows"] == 40
    assert {"teacher", "lora_onnx", "lora_int8"} <= set(metrics["models"])
    kept = pq.read_table(output / "predictions/teacher.parquet")["logits"].to_pylist()
    inputs = inputs_of(pq.read_table(paired_splits / "test"))
    assert np.allclose(kept, predict_logits(*load_classifier(made["teacher"] / "model"), inputs, max_length=32))
