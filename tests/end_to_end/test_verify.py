"""`stillhouse verify` on a real project: stages run again to the same bytes, and a tampered model shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

Project = Any


def test_stages_run_again_from_a_clean_clone_to_the_same_bytes(copied: Project) -> None:
    """Two of them; all would take as long as a first run."""
    found = json.loads(copied.run("stillhouse", "verify", "finetune", "evaluate", "--json").stdout)
    assert found["verdict"] == "equal"
    assert list(found["stages"]) == ["finetune", "evaluate"]
    outputs = [output for stage in found["stages"].values() for output in stage["outputs"]]
    assert {output["verdict"] for output in outputs} == {"equal"}
    paths = {output["path"] for output in outputs}
    assert {"artifacts/finetune/model/model.safetensors", "artifacts/evaluate/metrics.json"} <= paths
    assert "artifacts/evaluate/predictions/lora.parquet" in paths
    assert copied.json("reports/verify.json") == found


def tamper(weights: Path) -> tuple[str, float]:
    """Change one number of a model; the name of its tensor and what it was."""
    tensors = {name: value.copy() for name, value in load_file(weights).items()}
    name = next(name for name in sorted(tensors) if name.endswith("classifier.weight"))
    before = float(tensors[name][1, 2])
    tensors[name][1, 2] = np.float32(before + 0.25)
    weights.unlink()
    save_file(tensors, weights, {"format": "pt"})
    return name, before


def test_recorded_weights_that_training_does_not_give_are_named(copied: Project) -> None:
    name, before = tamper(copied.root / "artifacts/finetune/model/model.safetensors")
    copied.run("dvc", "commit", "--quiet", "--force", "finetune")
    done = copied.run("stillhouse", "verify", "finetune", "--json", code=3)
    found = json.loads(done.stdout)
    assert (found["verdict"], list(found["stages"])) == ("different", ["finetune"])
    different = [output for output in found["stages"]["finetune"]["outputs"] if output["verdict"] == "different"]
    (output,) = different
    assert output["path"] == "artifacts/finetune/model/model.safetensors"
    assert output["first_difference"]["where"] == f"tensor {name}[1, 2]"
    assert float(output["first_difference"]["found"]) == before
    assert float(output["first_difference"]["recorded"]) == pytest.approx(before + 0.25)
    assert "finetune" in done.stderr
