"""A folder as a finished run leaves it: four models, hostile texts, Chinese names, right-to-left rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.loader import load_params
from components.params.project import Params
from flows.models import models
from flows.repo import timings
from flows.repo.workspace import Workspace
from flows.reporting.evidence import Evidence, Origin, gather

ROOT = Path(__file__).parents[3]
LABELS = ["negative", "好|<b>"]
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
TEXTS = [HOSTILE, "这部电影不好", "هذا الفيلم رائع", "long " * 200, "</div></main>`|*", "plain"]
ACTUAL = [0, 0, 1, 1, 0, 1]
# Logits of the second class less those of the first.
GAPS = {
    "teacher": [-2.0, -3.0, 2.0, 1.0, 1.5, 2.0],
    "student_without_distillation": [-2.0, 3.0, 2.0, 1.0, 1.5, 2.0],
    "student": [-2.0, -3.0, 2.0, 1.0, 1.5, 2.0],
    "lora": [4.0, 1.0, 2.0, -3.0, -2.5, 2.0],
}
GROUPS = ["products", "推文<i>"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The run's folder; in no git repository."""
    made = Workspace(tmp_path)
    _write_evaluation(tmp_path)
    outs = {
        model.stage: {"outs": [{"path": f"artifacts/{model.stage}", "md5": f"hash-{model.stage}", "size": 7 * 10**6}]}
        for model in models()
    }
    _json(tmp_path / "dvc.lock", {"stages": outs})
    _json(tmp_path / "reports/benchmark.json", _benchmark())
    _json(tmp_path / "reports/decision.json", _decision(made.lock_digest()))
    _json(tmp_path / "artifacts/validate/gate.json", VERDICTS)
    _json(tmp_path / "artifacts/teacher/phases.json", [PHASE])
    _json(tmp_path / "artifacts/finetune/adapter/adapter_config.json", {"peft_type": "LORA"})
    _json(tmp_path / "runtime.json", {"torch": "2.13.0"})
    lines = [{"phase": "general", "step": 10 * step, "loss": 1 / step} for step in (1, 2, 3)]
    lines.append({"phase": "general", "step": 30, "eval_loss": 0.4, "eval_accuracy": 0.9})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "artifacts/teacher/history.jsonl").write_text(text, encoding="utf-8")
    timings.add(made, "teacher", "ran", 90.0)
    return made


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "tests/params.yaml")


@pytest.fixture
def evidence(workspace: Workspace, params: Params) -> Callable[..., Evidence]:
    """Gathers it; a ``card`` takes the place of the section of that name."""

    def made(origin: Origin = ORIGIN, card: Any = None) -> Evidence:
        given = params.model_copy(update={"card": card}) if card else params
        return gather(workspace, given, "2026-11-23 abc", origin, {"teacher": "restored"})

    return made


ORIGIN = Origin("0123456789", "http://127.0.0.1:5000/#/experiments/1/runs/0123456789", "c0ffee")
PHASE = {
    **{"name": "general", "objective": "labels", "trainable_parameters": 5, "parameters": 20},
    **{"rows": 6, "steps": 30},
}
RULE = {
    **{"rule": "duplicates", "severity": "warning", "passed": False, "bound": {"max_share": 0.01}, "observed": 0.5},
    **{"checks": [{"split": "train", "what": "rows", "passed": False, "failing": 3, "of": 6, "observed": 0.5}]},
    **{"findings": [{"says": "3 rows repeat <others>"}], "examples": []},
}
VERDICTS = {
    "passed": True,
    "expectations": 7,
    "labels": LABELS,
    "rules": [RULE],
    "summary": {
        **{"rows": {"train": 6, "test": 6}, "used": {"train": 6, "test": 6}, "max_length": 8},
        "classes": {"train": {LABELS[0]: 3, LABELS[1]: 3}, "test": {LABELS[0]: 3, LABELS[1]: 3}},
        "groups": {"train": {GROUPS[0]: 3, GROUPS[1]: 3}, "test": {GROUPS[0]: 3, GROUPS[1]: 3}},
        "tokens": {"median": {"train": 4, "test": 4}, "p95": {"train": 8, "test": 8}, "max": {"train": 9, "test": 9}},
    },
}


def _write_evaluation(root: Path) -> None:
    folder = root / "artifacts/evaluate"
    (folder / "predictions").mkdir(parents=True)
    (folder / "plots/reliability").mkdir(parents=True)
    for name, gaps in GAPS.items():
        pq.write_table(_predictions(gaps), folder / "predictions" / f"{name}.parquet")
        curve = "confidence,accuracy,rows\n0.6,0.5,2\n0.9,0.75,4\n"
        (folder / "plots/reliability" / f"{name}.csv").write_text(curve, encoding="utf-8")
    (root / "artifacts/validate/test").mkdir(parents=True)
    for part, rows in enumerate(([0, 1, 2], [3, 4, 5])):
        shard = pa.table({"row": rows, "text": [TEXTS[row] for row in rows]})
        pq.write_table(shard, root / f"artifacts/validate/test/part-0000{part}.parquet")
    _json(folder / "metrics.json", _metrics())


def _predictions(gaps: list[float]) -> pa.Table:
    logits = pa.array([[0.0, gap] for gap in gaps], pa.list_(pa.float32(), 2))
    found = [int(gap > 0) for gap in gaps]
    columns = {
        "row": list(range(len(gaps))),
        "group": [GROUPS[row % 2] for row in range(len(gaps))],
        "label": pa.array(ACTUAL, pa.int32()),
        "prediction": pa.array(found, pa.int32()),
        "logits": logits,
        "actual": [LABELS[label] for label in ACTUAL],
        "predicted": [LABELS[label] for label in found],
        "right": [label == actual for label, actual in zip(found, ACTUAL, strict=True)],
        "confidence": pa.array([1 / (1 + math.exp(-abs(gap))) for gap in gaps], pa.float32()),
    }
    return pa.table(columns)


def _scores(accuracy: float) -> dict[str, Any]:
    ends = {"accuracy_ci": [accuracy - 0.02, accuracy + 0.02], "macro_f1_ci": [accuracy - 0.03, accuracy + 0.01]}
    return {"accuracy": accuracy, "macro_f1": accuracy - 0.01, "rows": 3, "documents": 2} | ends


def _metrics() -> dict[str, Any]:
    found = {}
    for place, name in enumerate(GAPS):
        groups = {group: _scores(0.8 - 0.02 * place) for group in GROUPS}
        size = {"parameters": 20_000_000 // (1 + place), "megabytes": 80.0 / (1 + place)}
        quality = {"ece": 0.05, "agreement_with_teacher": 0.9, "groups": groups}
        found[name] = _scores(0.9 - 0.02 * place) | size | quality
    whole = {"accuracy": 0.02, "ci": [0.01, 0.03], "seeds": 1, "documents": 5}
    lost = {"accuracy": -0.02, "ci": [-0.03, -0.01], "seeds": 1, "documents": 5}
    return {
        "models": found,
        "differences": {},
        "gains": {"distillation": whole | {"target": whole}, "lora": lost | {"target": whole}},
        "rows": 6,
        "documents": 5,
        "target_group": "products",
        "confidence": 0.95,
    }


def _benchmark() -> dict[str, Any]:
    speeds = {
        name: {"latency_p50_ms": 8.0 / place, "latency_p95_ms": 9.0 / place, "throughput_per_s": 100.0 * place}
        for place, name in enumerate(GAPS, 1)
    }
    return {
        "models": speeds,
        "content": {model.name: f"hash-{model.stage}" for model in models()},
        "host": {"cpu": "a <CPU>", "cores": 2, "threads": 2, "device": "cpu", "torch": "2.13.0"},
        "settings": {"latency_texts": 4, "throughput_texts": 32},
    }


def _decision(lock: str) -> dict[str, Any]:
    return {
        **{"promoted": True, "outcome": "better", "reasons": ["It is better on 推文<i>."], "lock": lock},
        **{"challenger": {"version": "3"}, "champion": {"version": "2"}, "registered_model": "demo"},
        "floors": {"retention": {"asked": 0.95, "found": None, "met": False}},
    }


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
