"""Two machines and one DVC remote: what one has computed the other restores."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

Project = Any
STAGES = ["validate", "teacher", "label", "distill", "control", "finetune", "controls", "export", "evaluate"]


@pytest.fixture
def sharing(copied: Project, tmp_path: Path) -> Project:
    """A finished project whose git repository names a folder as its DVC remote."""
    copied.run("dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store"))
    copied.git("add", ".")
    copied.git("commit", "--quiet", "-m", "results")
    return copied


def second_machine(project: Project, folder: Path) -> Project:
    """A clone with the data, and nothing else."""
    subprocess.run(["git", "clone", "--quiet", str(project.root), str(folder)], check=True)
    other = type(project)(folder, project.api)
    other.run("stillhouse", "data", "pull")
    return other


def test_a_second_clone_restores_every_stage_and_what_no_dvc_lock_names(sharing: Project, tmp_path: Path) -> None:
    sharing.run("dvc", "push", "--quiet", "data.dvc")
    sharing.edit(lambda params: params["evaluate"]["bootstrap"].update(resamples=300))
    assert sharing.outcomes(sharing.run("stillhouse", "run", "--push").stdout)["evaluate"] == "ran"
    other = second_machine(sharing, tmp_path / "other")
    # Its dvc.lock is of 200 resamples; the parameter is changed as on the first machine.
    other.edit(lambda params: params["evaluate"]["bootstrap"].update(resamples=300))
    outcomes = other.outcomes(other.run("stillhouse", "run").stdout)
    assert {stage: outcomes[stage] for stage in STAGES} == dict.fromkeys(STAGES, "restored")
    assert other.lock() == sharing.lock()
