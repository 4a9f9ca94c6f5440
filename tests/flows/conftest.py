"""A small git and DVC repository whose stages are plain Python scripts; a copy of it takes 10 ms."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.repo.workspace import Workspace

DVC_YAML = """\
stages:
  join:
    cmd: {python} code/join.py
    deps: [code/join.py, artifacts/first/part, artifacts/second]
    outs: [artifacts/join]
  first:
    cmd: {python} code/first.py
    deps: [code/first.py, data]
    params: [first]
    outs: [artifacts/first]
  second:
    cmd: {python} code/second.py
    deps: [code/second.py, artifacts/first/part]
    params: [second.times]
    outs: [artifacts/second]
  other:
    cmd: {python} code/other.py
    deps: [code/other.py, data/rows.csv]
    outs: [artifacts/other]
"""
PARAMS = "first: {words: {keep: 2, note: 词}, rate: 1.0e-4}\nsecond: {times: 1, unused: 0}\n"
HEAD = "from pathlib import Path\nhere = Path('artifacts')\nhere.mkdir(exist_ok=True)\n"
SCRIPTS = {
    "first": """
keep = int(Path('params.yaml').read_text(encoding='utf-8').split('keep: ')[1][0])
words = Path('data/rows.csv').read_text(encoding='utf-8').split()
(here / 'first').mkdir()
(here / 'first' / 'part').write_text(' '.join(words[:keep]), encoding='utf-8')
(here / 'first' / 'log').write_text('done')
""",
    "second": """
times = int(Path('params.yaml').read_text(encoding='utf-8').split('times: ')[1][0])
(here / 'second').write_text((here / 'first' / 'part').read_text(encoding='utf-8') * times, encoding='utf-8')
""",
    "join": "(here / 'join').write_bytes((here / 'first' / 'part').read_bytes() + (here / 'second').read_bytes())\n",
    "other": "(here / 'other').write_text(str(len(Path('data/rows.csv').read_bytes())))\n",
}


@dataclass(frozen=True)
class Toy:
    """A workspace to try things on."""

    workspace: Workspace

    @property
    def root(self) -> Path:
        return self.workspace.root

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace some text of a file; it must be there."""
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        (self.root / name).write_text(text.replace(old, new), encoding="utf-8")

    def repro(self, *single: str) -> list[str]:
        """`dvc repro`, or `dvc repro -s SINGLE`, in this process; the stages that were run or restored."""
        with contextlib.chdir(self.root), self.repo() as repo:
            return [stage.addressing for stage in repo.reproduce(list(single), single_item=bool(single))]

    def repo(self) -> Any:
        from dvc.repo import Repo

        return Repo(str(self.root))

    def git(self, *arguments: str) -> None:
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *settings, *arguments], cwd=self.root, check=True, capture_output=True)

    def plan(self) -> dict[str, tuple[str, list[str]]]:
        """Action and reasons by stage."""
        return {stage.name: (stage.action, stage.because) for stage in self.workspace.plan()}


def make_toy(root: Path) -> Toy:
    """Write the repository; nothing is committed, added or run yet."""
    from dvc.repo import Repo

    for name in ("code", "data"):
        (root / name).mkdir(parents=True)
    for name, body in SCRIPTS.items():
        (root / "code" / f"{name}.py").write_text(HEAD + body, encoding="utf-8")
    (root / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable), encoding="utf-8")
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (root / "data" / "rows.csv").write_text("文本,label\n很好,1\n不好,0\n", encoding="utf-8")
    (root / ".gitignore").write_text("/data\n/artifacts\n", encoding="utf-8")
    (root / ".dvcignore").write_text("*.partial\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", root], check=True)
    Repo.init(str(root)).close()
    return Toy(Workspace(root))


@pytest.fixture(scope="session", autouse=True)
def _dvc_keeps_to_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    """DVC's own state goes to a temporary folder, not to one that the machine's repositories share."""
    folder = str(tmp_path_factory.mktemp("dvc"))
    os.environ.update(DVC_SITE_CACHE_DIR=folder, DVC_GLOBAL_CONFIG_DIR=folder, DVC_NO_ANALYTICS="1")


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[None]:
    """Flows that run in this process use a real Prefect API."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield
        APILogHandler().flush()  # what came after the server's end would be complained of


@pytest.fixture(scope="session")
def _new_toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy") / "new")


@pytest.fixture(scope="session")
def _finished_toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("toy") / "finished")
    toy.workspace.add_data()
    toy.repro()
    toy.git("add", ".")
    toy.git("commit", "--quiet", "-m", "first")
    return toy


def _copy(toy: Toy, folder: Path) -> Toy:
    shutil.copytree(toy.root, folder, symlinks=True)
    return Toy(Workspace(folder))


@pytest.fixture
def new_toy(_new_toy: Toy, tmp_path: Path) -> Toy:
    """A repository without data.dvc, in which nothing has run or been committed."""
    return _copy(_new_toy, tmp_path / "new")


@pytest.fixture
def toy(_finished_toy: Toy, tmp_path: Path) -> Toy:
    """A repository that has run, with everything committed."""
    return _copy(_finished_toy, tmp_path / "toy")
