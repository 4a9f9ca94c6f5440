"""A project with the stage `teacher` and checkpoints of it, made without training anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from components import fingerprint, keeping
from components.ml.training.seal import seal
from flows.repo import checkpoints
from flows.repo.workspace import Workspace
from tests.conftest import lay_out_teacher

ROOT = Path(__file__).parents[3]
CODE = "components/ml/training/losses.py"
STAGE = """\
stages:
  teacher:
    cmd: mkdir -p artifacts/teacher && cp params.yaml artifacts/teacher
    deps: [data/base_model, artifacts/validate, runtime.json, {code}]
    params: [teacher, seed]
    outs: [artifacts/teacher]
"""


@dataclass(frozen=True)
class Trains:
    """The project."""

    workspace: Workspace

    @property
    def root(self) -> Path:
        return self.workspace.root

    @property
    def folder(self) -> Path:
        """Where the teacher's checkpoints are with its present inputs."""
        parts = checkpoints.present(self.workspace, "teacher")
        assert parts is not None
        return checkpoints.place_of(self.workspace, "teacher") / fingerprint.digest(parts)

    def edit(self, old: str = "from __future__", new: str = "# An edit.\nfrom __future__", name: str = CODE) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        (self.root / name).write_text(text.replace(old, new), encoding="utf-8")

    def train(self, phase: str = "0-general", place: str = "checkpoint-10", step: int = 10, total: int = 40) -> Path:
        """Leave a checkpoint for the present inputs."""
        folder = self.folder
        if not folder.exists():
            keeping.write_parts(folder, checkpoints.present(self.workspace, "teacher"), [])
        sealed = folder / phase / place
        sealed.mkdir(parents=True)
        (sealed / "model.safetensors").write_bytes(bytes(8))
        seal(sealed, step=step, total=total)
        return folder

    def age(self, folder: Path, days: float) -> None:
        """Make it look as if nobody had touched the folder for some days."""
        then = time.time() - days * 24 * 3600
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (then, then))

    def repro(self) -> None:
        with self.workspace.repo() as repo:
            repo.reproduce(["teacher"])


@pytest.fixture(scope="session")
def _trains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("trains") / "project"
    lay_out_teacher(root)
    (root / "dvc.yaml").write_text(STAGE.format(code=CODE))
    subprocess.run(["git", "init", "--quiet", root], check=True)
    Repo.init(str(root)).close()
    return root


@pytest.fixture
def trains(_trains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trains:
    """The project, in which the teacher has never run."""
    root = tmp_path / "trains"
    shutil.copytree(_trains, root, symlinks=True)
    monkeypatch.chdir(root)
    return Trains(Workspace(root))
