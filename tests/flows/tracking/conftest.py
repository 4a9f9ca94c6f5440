"""A tiny evaluated pipeline run: four random BERTs that read English and Chinese, their logits and metrics."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.tracking import store
from flows.tracking.record import ModelRecord, PipelineRecord, gain_metrics, model_metrics
from flows.tracking.tracker import Tracker

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
NAMES = ("teacher", "student", "student_without_distillation", "lora")
STAGES = dict(zip(NAMES, ("teacher", "distill", "control", "finetune"), strict=True))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", *"这部电影很好不坏看"]
TEXTS = ["a good film", "这部电影很好看", "bad", "这部电影不好", "a bad film " * 9, ""] * 12
LABELS = ["negative", "正面"]


@pytest.fixture(autouse=True)
def no_outer_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four transformers folders with different weights, ``model/`` under each name."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("models")
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
        initializer_range=0.5,
    )
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(root / name / "model")
        tokenizer.save_pretrained(root / name / "model")
    return root


@pytest.fixture(scope="session")
def finished_run(tiny_models: Path) -> PipelineRecord:
    """The record of a pipeline run over the tiny models, with files as the stages leave them."""
    from components.ml.models.scoring import load_classifier, predict_logits

    root = tiny_models
    rows = list(range(len(TEXTS)))
    (root / "test").mkdir()
    pq.write_table(pa.table({"row": rows, "text": TEXTS}), root / "test" / "part-00000.parquet")
    metrics = {"models": {name: _scores(index) for index, name in enumerate(NAMES)}, "gains": gains()}
    records = []
    for name in NAMES:
        logits = predict_logits(*load_classifier(root / name / "model"), TEXTS, max_length=12)
        pq.write_table(predictions(rows, logits), root / f"{name}.parquet")
        history = root / name / "history.jsonl"
        history.write_text("".join(json.dumps(line) + "\n" for line in curve()), encoding="utf-8")
        records.append(
            ModelRecord(
                name=name,
                stage=STAGES[name],
                folder=root / name / "model",
                content=content_of(root / name / "model"),
                version="1.0.0+abc1234",
                metrics=model_metrics(metrics, benchmark(), name),
                predictions=root / f"{name}.parquet",
                params={"lr": 1e-4, "seed": 13},
                history=history,
            )
        )
    (root / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (root / "accuracy.svg").write_text("<svg/>", encoding="utf-8")
    return PipelineRecord(
        name="2026-11-22 demo 3f9c",
        inputs_digest="inputs-1",
        lock_digest="lock-1",
        git_commit="0123456789abcdef0123456789abcdef01234567",
        data_hash="0123456789abcdef0123456789abcdef.dir",
        rows=len(TEXTS),
        max_length=12,
        params={"seed": 13, "teacher.phases.general.lr": 5e-5, "teacher.phases.my phase!.lr": 1},
        versions={"teacher": "1.0.0+abc1234"},
        models=records,
        gains=gain_metrics(metrics),
        texts=root / "test",
        comparison="| model | accuracy |\n|---|---|\n| teacher | 0.9 |",
        figures=[root / "accuracy.svg"],
        files={"metrics.json": root / "metrics.json", "gate/missing.html": root / "missing.html"},
    )


def _scores(index: int) -> dict[str, object]:
    return {
        **dict.fromkeys(("accuracy", "macro_f1", "macro_precision", "macro_recall"), 0.9 - index / 100),
        **{"ece": 0.05, "agreement_with_teacher": 0.95, "parameters": 1000 + index, "megabytes": 0.1},
        **{"accuracy_ci": [0.8, 0.95], "macro_f1_ci": [0.8, 0.95]},
        "groups": {"影评": {"accuracy": 0.7, "macro_f1": 0.6}, "a/b": {"accuracy": 0.8, "macro_f1": 0.7}},
    }


def gains() -> dict[str, dict[str, object]]:
    """As evaluation tells them: distillation over two seeds, on all rows and on the target group."""
    target = {"accuracy": 0.03, "ci": [-0.01, 0.07], "seeds": 2, "documents": 5}
    return {"distillation": {"accuracy": 0.02, "ci": [0.01, 0.04], "seeds": 2, "documents": 12, "target": target}}


def benchmark() -> dict[str, object]:
    speed = {"latency_p50_ms": 2.0, "latency_p95_ms": 3.0, "throughput_per_s": 500.0}
    return {"models": dict.fromkeys(NAMES, speed)}


def curve() -> list[dict[str, object]]:
    """Two epochs of ten steps with a measurement at the end of each."""
    steps: list[dict[str, object]] = [
        {"phase": "general", "step": step, "total_steps": 20, "epoch": step / 10, "loss": 1 / step, "grad_norm": 1.0}
        for step in range(1, 21)
    ]
    ends: list[dict[str, object]] = [
        {"phase": "general", "step": step, "epoch": step / 10, "eval_loss": 0.5, "eval_accuracy": 0.8}
        for step in (10, 20)
    ]
    return steps + ends


def predictions(rows: list[int], logits: np.ndarray) -> pa.Table:
    values = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel(), pa.float32()), logits.shape[1])
    return pa.table({"row": pa.array(rows, pa.int64()), "logits": values})


def content_of(folder: Path) -> str:
    return hashlib.md5((folder / "model.safetensors").read_bytes()).hexdigest() + ".dir"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("empty")
    return Path(store.prepare(root).removeprefix("sqlite:///"))


@pytest.fixture
def make_tracker(empty_database: Path, tmp_path: Path) -> Callable[[], Tracker]:
    """Trackers over one fresh store: each call is another process's view of it."""
    target = tmp_path / ".stillhouse" / "mlflow" / "mlflow.db"
    target.parent.mkdir(parents=True)
    shutil.copyfile(empty_database, target)
    return lambda: Tracker(tmp_path, "demo")


@pytest.fixture
def one_model(finished_run: PipelineRecord) -> PipelineRecord:
    """The same run with the LoRA student alone: quicker to publish."""
    return dataclasses.replace(finished_run, models=[finished_run.models[-1]])


@pytest.fixture(scope="session")
def published_root(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory, finished_run: PipelineRecord
) -> Path:
    """A store that the finished run has been published to; not to be changed."""
    root = tmp_path_factory.mktemp("published")
    (root / ".stillhouse" / "mlflow").mkdir(parents=True)
    shutil.copyfile(empty_database, root / ".stillhouse" / "mlflow" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker(root, "demo").publish(finished_run)
    return root
