"""Two projects to harm: a torch-free graph of twelve stages side by side, and the tiny model's whole pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
WIDE = [f"wide{index:02d}" for index in range(12)]
STAGES = ["source", *WIDE, "join"]

# Slow enough to be killed inside, and written as components write: beside its place, then renamed.
SCRIPT = """
import hashlib, shutil, sys, time
from pathlib import Path

name, seconds, *inputs = sys.argv[1:]
output = Path('artifacts') / name
partial = output.with_name(name + '.partial')
shutil.rmtree(partial, ignore_errors=True)
partial.mkdir(parents=True)
state = b''.join(path.read_bytes() for folder in inputs for path in sorted(Path(folder).rglob('*')) if path.is_file())
for index in range(8):
    state = hashlib.sha256(state + name.encode()).digest()
    with (partial / f'part{index}').open('wb') as file:
        for _ in range(64):
            file.write(state * 16)
            file.flush()
    time.sleep(float(seconds) / 8)
shutil.rmtree(output, ignore_errors=True)
partial.rename(output)
"""


@dataclass
class Project:
    """A checkout, what its finished run looks like, and how a run of it is started."""

    root: Path
    kind: str
    stages: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *options: str) -> list[str]:
        """What starts a run of it."""
        if self.kind == "toy":
            return [sys.executable, str(ROOT / "tests/soak/toy_run.py"), str(self.root), *(options or ["12"])]
        return [sys.executable, "-m", "flows.cli", "run", *options]

    def environ(self) -> dict[str, str]:
        """The environment of its processes."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return kept | {"PATH": path, "COLUMNS": "120", "STILLHOUSE_RETRY_DELAYS": "0.2,0.2"} | self.environment

    def results(self) -> dict[str, bytes]:
        """Every file of every finished output, by path; half-written folders carry another name."""
        artifacts = self.root / "artifacts"
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for stage in self.stages
            for path in sorted((artifacts / stage).rglob("*"))
            if path.is_file()
        }

    def lock(self) -> dict[str, Any]:
        """The parsed stages of dvc.lock."""
        return dict(YAML(typ="safe").load(self.root / "dvc.lock")["stages"])

    def copy(self, folder: Path, **environment: str) -> Project:
        """A copy to do harm to."""
        shutil.copytree(self.root, folder, symlinks=True)
        return Project(folder, self.kind, self.stages, self.environment | environment)


def git(root: Path, *arguments: str) -> None:
    """Run git as somebody."""
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *arguments], cwd=root, check=True, capture_output=True)


def make_toy(root: Path, seconds: float = 0.4) -> Project:
    """A torch-free project: a source, twelve stages that read it, and one that reads them all; nothing has run."""
    from dvc.repo import Repo

    (root / "code").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "code/stage.py").write_text(SCRIPT, encoding="utf-8")
    (root / "data/rows.csv").write_text("文本,label\n很好,1\n不好,0\n", encoding="utf-8")
    (root / "params.yaml").write_text("seconds: 1\n", encoding="utf-8")
    (root / ".gitignore").write_text("/data\n/artifacts\n/.stillhouse\n", encoding="utf-8")
    (root / ".dvcignore").write_text("*.partial\n", encoding="utf-8")
    reads = {"source": ["data"], **{name: ["artifacts/source"] for name in WIDE}}
    reads["join"] = [f"artifacts/{name}" for name in WIDE]
    stages = {
        name: {
            "cmd": f"{sys.executable} code/stage.py {name} {seconds} {' '.join(inputs)}",
            "deps": ["code/stage.py", *inputs],
            "outs": [f"artifacts/{name}"],
        }
        for name, inputs in reads.items()
    }
    YAML(typ="safe").dump({"stages": stages}, root / "dvc.yaml")
    git(root.parent, "init", "--quiet", str(root))
    with Repo.init(str(root)) as repo:
        repo.add(str(root / "data"))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    return Project(root, "toy", STAGES)


def make_tiny(root: Path, every: int = 10) -> Project:
    """The whole pipeline on a tiny model, with a checkpoint every few steps; nothing has run."""
    from tests.conftest import make_texts, save_tiny_encoder
    from tests.end_to_end.conftest import make_project

    project = make_project(root, save_tiny_encoder(root.parent / "encoder"), make_texts(400))
    project.edit(lambda params: params.setdefault("checkpoints", {}).update(every=every))
    stages = list(YAML(typ="safe").load(root / "dvc.yaml")["stages"])
    return Project(root, "tiny", stages, {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""})
