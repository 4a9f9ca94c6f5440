"""Every example is a whole params.yaml that runs, from the gate to the evaluation, on a tiny model."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.component import COMPONENTS
from components.loader import load_params

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS: list[tuple[str, str | None]] = [(folder.name, None) for folder in sorted(EXAMPLES.iterdir()) if folder.is_dir()]
RUNS += [("full-partial-lora", "full"), ("full-partial-lora", "partial")]
GROUPS = ("products", "editorials", "tweets")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_data(data: Path, encoder: Path, pairs: list[tuple[str, str]]) -> None:
    """The files that the examples name, with few rows."""
    data.mkdir()
    shutil.copytree(encoder, data / "base_model")
    rows = [
        {"text": text, "label": label, "group": GROUPS[index // 2 % 3], "document": f"d{index // 4}"}
        for index, (text, label) in enumerate(pairs)
    ]
    write(data / "train.jsonl", rows[:180])
    write(data / "validation.jsonl", rows[180:240])
    write(data / "test.jsonl", rows[240:300])
    write(
        data / "unlabelled.jsonl", [{name: row[name] for name in ("text", "group", "document")} for row in rows[300:]]
    )
    draw = random.Random(0)
    write(data / "topics.jsonl", [{"text": text, "topic": draw.choice(["phone", "film"])} for text, _ in pairs[:60]])
    words = [text.split() for text, _ in pairs[:60] if " " in text]
    write(data / "entities.jsonl", [{"tokens": line, "tags": [f"T{len(word) % 2}" for word in line]} for line in words])
    judged = [(text, 0.9 if label == "positive" else 0.2) for text, label in pairs[:150] + pairs[300:340]]
    write(
        data / "judgements.jsonl",
        [{"text": text, "probabilities": {"positive": share, "negative": 1 - share}} for text, share in judged],
    )


@pytest.mark.parametrize(("name", "fine_tune"), RUNS, ids=[f"{name}-{part}" if part else name for name, part in RUNS])
def test_an_example_runs(
    name: str,
    fine_tune: str | None,
    small_encoder: Path,
    texts: Callable[[int], list[tuple[str, str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", small_encoder, texts(360))
    settings = YAML(typ="safe").load(EXAMPLES / name / "params.yaml")
    settings["runtime"]["threads"] = 1
    settings["data"]["max_length"] = 32
    settings["evaluate"]["bootstrap"]["resamples"] = 200
    if fine_tune != "full":  # one of them shows that what follows the fine-tune takes its model
        settings["export"]["formats"] = []
    if fine_tune:
        settings["finetune"]["order"] = [fine_tune]
    YAML(typ="safe").dump(settings, tmp_path / "params.yaml")
    params = load_params(tmp_path / "params.yaml")
    for component in COMPONENTS.values():
        component.run(params)
    metrics = json.loads((tmp_path / "artifacts/evaluate/metrics.json").read_text())
    assert {"teacher", "student", "student_without_distillation", "lora"} <= metrics["models"].keys()
    for stage in ("teacher", "distill", "control", "finetune"):
        phases = json.loads((tmp_path / "artifacts" / stage / "phases.json").read_text())
        order = getattr(params, {"control": "distill"}.get(stage, stage)).order
        assert [phase["name"] for phase in phases] == order
        assert all(0 < phase["trainable_parameters"] <= phase["parameters"] for phase in phases)
