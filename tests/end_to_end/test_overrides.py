"""`stillhouse run --set` on the tiny project: only what the parameter touches is trained, and the checkout stays."""

from __future__ import annotations

import json
import subprocess
from typing import Any

Project = Any
SET = ("--set", "finetune.phases.specific.epochs=3", "--set", "export.formats=[]")
AFTER_IT = {"controls", "finetune", "export", "evaluate"}


def checkout(project: Project) -> list[Any]:
    """What a run elsewhere must leave as it is."""
    status = subprocess.run(["git", "status", "--short"], cwd=project.root, capture_output=True, check=True).stdout
    outputs = [path for path in (project.root / "artifacts").rglob("*") if path.is_file()]
    kept = [project.root / "params.yaml", project.root / "dvc.lock", *sorted(outputs)]
    return [status, [(path, path.read_bytes()) for path in kept]]


def stages(project: Project, *arguments: str) -> dict[str, str]:
    """What `stillhouse run` did to each stage."""
    outcomes = project.outcomes(project.run("stillhouse", "run", *arguments).stdout)
    return {name: outcome for name, outcome in outcomes.items() if name in project.lock()}


def test_a_parameter_for_one_run_trains_what_follows_it_once_and_leaves_the_checkout(copied: Project) -> None:
    before = checkout(copied)
    unchanged = dict.fromkeys(copied.lock(), "unchanged")
    assert stages(copied, *SET) == unchanged | dict.fromkeys(AFTER_IT, "ran")
    assert checkout(copied) == before
    assert stages(copied, *SET) == unchanged | dict.fromkeys(AFTER_IT, "restored")
    assert checkout(copied) == before
    plan = json.loads(copied.run("stillhouse", "plan", "--json").stdout)["stages"]
    assert {stage["action"] for stage in plan} == {"skip"}
