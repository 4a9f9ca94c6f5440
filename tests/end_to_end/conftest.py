"""A whole project in a temporary git repository: our code, a tiny base model, rows in two scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CODE = ("components", "flows", "mlflow", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml")
# Tiny, but every part of it runs.
TINY = {
    "runtime": {"threads": 1},
    "data": {"max_length": 32, "columns": {"text": "text", "label": "label", "group": "group", "document": None}},
    "teacher": {"phases": {"general": {"epochs": 2, "lr": 5e-3}}},
    "distill": {"student": {"layers": 2}, "phases": {"distill": {"epochs": 2, "lr": 5e-3}}},
    "finetune": {"phases": {"specific": {"epochs": 1, "trainable": {"lora": {"r": 2}}}}},
    "evaluate": {"bootstrap": {"resamples": 200}},
    "benchmark": {"latency_texts": 4, "throughput_texts": 32},
}


@dataclass(frozen=True)
class Project:
    """A checkout and how to use it as a person would; ``api`` names a Prefect server, else each run starts its own."""

    root: Path
    api: str | None = None

    def run(self, *command: str, code: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it; ``stillhouse`` and ``dvc`` are those of this interpreter."""
        done = subprocess.run(
            self.command(*command),
            cwd=self.root,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def command(self, program: str, *arguments: str) -> list[str]:
        modules = {"stillhouse": "flows.cli", "dvc": "dvc"}
        return [sys.executable, "-m", modules[program], *arguments] if program in modules else [program, *arguments]

    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        served = {"PREFECT_API_URL": self.api} if self.api else {}
        return kept | {"PATH": path, "COLUMNS": "120", "PYTHONPATH": "", "STILLHOUSE_RETRY_DELAYS": ""} | served

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change params.yaml."""
        path = self.root / "params.yaml"
        params = YAML(typ="safe").load(path)
        change(params)
        YAML(typ="safe").dump(params, path)

    def lock(self) -> dict[str, Any]:
        """The parsed entries of dvc.lock."""
        return dict(YAML(typ="safe").load(self.root / "dvc.lock")["stages"])

    def json(self, path: str) -> Any:
        return json.loads((self.root / path).read_text(encoding="utf-8"))

    def outcomes(self, output: str) -> dict[str, str]:
        """What the plain display said of each stage."""
        words = {"done in": "ran", "restored from the cache": "restored", "unchanged": "unchanged", "failed": "failed"}
        found: dict[str, str] = {}
        for line in output.splitlines():
            parts = line.split()
            if len(parts) > 1 and parts[0] in "✓=✗":
                found[parts[1]] = next(word for phrase, word in words.items() if phrase in line)
        return found

    def git(self, *arguments: str) -> None:
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *settings, *arguments], cwd=self.root, check=True, capture_output=True)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def write_rows(path: Path, rows: Sequence[tuple[str, str]], groups: Sequence[str] = ("products", "tweets")) -> None:
    """JSON lines with text, label and, in turn, group."""
    lines = [
        {"text": text, "label": label, "group": groups[index // 2 % len(groups)]}
        for index, (text, label) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def make_project(root: Path, encoder: Path, rows: Sequence[tuple[str, str]]) -> Project:
    """A project with 400 ``rows`` of data and a first commit, in which nothing has run."""
    project = Project(root)
    for name in CODE:
        source, target = ROOT / name, project.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, ignore=ignore) if source.is_dir() else shutil.copyfile(source, target)
    shutil.copyfile(ROOT / "runtime.json", project.root / "runtime.json")
    params = YAML(typ="safe").load(ROOT / "tests/params.yaml")
    _merge(params, TINY)
    YAML(typ="safe").dump(params, project.root / "params.yaml")
    data = project.root / "data"
    shutil.copytree(encoder, data / "base_model")
    write_rows(data / "train.jsonl", rows[:240])
    write_rows(data / "validation.jsonl", rows[240:296])
    write_rows(data / "test.jsonl", rows[296:376])
    pool = "".join(json.dumps({"text": text, "group": "tweets"}, ensure_ascii=False) + "\n" for text, _ in rows[376:])
    (data / "unlabelled.jsonl").write_text(pool, encoding="utf-8")
    project.git("init", "--quiet")
    project.run("dvc", "add", "--quiet", "data")
    project.git("add", ".")
    project.git("commit", "--quiet", "-m", "first")
    return project


@pytest.fixture(scope="session")
def finished_project(
    shared_folder: Path,
    tiny_encoder: Path,
    texts: Callable[..., list[tuple[str, str]]],
) -> Project:
    """The project after `stillhouse run`, one for all workers; the output is in `first_run.txt`. Not to be changed."""
    project = Project(shared_folder / "project" / "stillhouse")
    said = project.root / ".stillhouse" / "first_run.txt"
    with FileLock(shared_folder / "project.lock"):
        if not said.exists():
            make_project(project.root, tiny_encoder, texts(400))
            done = project.run("stillhouse", "run")
            said.write_text(done.stdout + done.stderr, encoding="utf-8")
    return project


@pytest.fixture
def copied(finished_project: Project, prefect_api: str, tmp_path: Path) -> Project:
    """A copy of the finished project, to do harm to."""
    root = tmp_path / "copy"
    shutil.copytree(finished_project.root, root, symlinks=True)
    return Project(root, prefect_api)
