"""What users get wrong: one readable message, exit code 2, no traceback, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Project = Any


def rewrite(name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Project], None]:
    """Change the rows of a data file and version the result."""

    def harm(project: Project) -> None:
        path = project.root / "data" / name
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in change(rows))
        path.write_text(text, encoding="utf-8")
        project.run("dvc", "add", "--quiet", "data")

    return harm


def set_param(section: str, **values: Any) -> Callable[[Project], None]:
    return lambda project: project.edit(lambda params: params[section].update(values))


def not_utf8(project: Project) -> None:
    path = project.root / "data/train.jsonl"
    path.write_bytes(
        path.read_bytes() + '{"text": "größe", "label": "positive", "group": "tweets"}\n'.encode("latin-1")
    )
    project.run("dvc", "add", "--quiet", "data")


def misspelt(project: Project) -> None:
    project.edit(lambda params: params["distill"].update(temprature=2.0))


def without_column(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"txt": row["text"], "label": row["label"], "group": row["group"]} for row in rows]


NOWHERE = {"specific": {"objective": "labels", "on": "nowhere", "epochs": 1, "lr": 1e-3}}
MISTAKES: dict[str, tuple[Callable[[Project], None], tuple[str, ...]]] = {
    "missing column": (rewrite("test.jsonl", without_column), ("text", "data/test.jsonl", "txt")),
    "empty file": (rewrite("validation.jsonl", lambda rows: []), ("data/validation.jsonl", "is empty")),
    "not UTF-8": (not_utf8, ("data/train.jsonl", "UTF-8", "241")),
    "misspelt key": (misspelt, ("temprature", "temperature")),
    "mistyped value": (set_param("runtime", threads="two"), ("runtime.threads", "'two'")),
    "no such base model": (set_param("teacher", base="data/nowhere"), ("teacher.base", "data/nowhere")),
    "group without rows": (set_param("finetune", phases=NOWHERE), ("finetune.phases.specific", "nowhere", "tweets")),
    "data gone": (lambda project: shutil.rmtree(project.root / "data"), ("data/", "stillhouse data pull")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gives_one_readable_message_and_exit_code_2(copied: Project, name: str) -> None:
    harm, words = MISTAKES[name]
    metrics = (copied.root / "artifacts/evaluate/metrics.json").read_bytes()
    harm(copied)
    done = copied.run("stillhouse", "run", code=2)
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "To do:" in done.stderr
    copied.git("checkout", "--", ".")
    copied.git("checkout", "HEAD", "--", "data.dvc")
    copied.run("dvc", "checkout", "--quiet", "--force", "data.dvc")
    copied.run("dvc", "repro", "--quiet")
    assert (copied.root / "artifacts/evaluate/metrics.json").read_bytes() == metrics


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_told_plainly_and_earlier_results_stay(copied: Project, small_disk: Path) -> None:
    metrics = (copied.root / "artifacts/evaluate/metrics.json").read_bytes()
    for name in ("artifacts",):
        shutil.rmtree(copied.root / name)
        (small_disk / name).mkdir()
        (copied.root / name).symlink_to(small_disk / name)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    copied.edit(lambda params: params.update(seed=99))
    done = copied.run("stillhouse", "run", code=2)
    assert "disk is full" in done.stderr.lower()
    assert "Traceback" not in done.stdout + done.stderr
    (copied.root / "artifacts").unlink()
    copied.git("checkout", "--", "params.yaml")
    copied.run("dvc", "checkout", "--quiet", "--force")
    assert (copied.root / "artifacts/evaluate/metrics.json").read_bytes() == metrics


def test_commands_outside_a_project_say_so(tmp_path: Path, finished_project: Project) -> None:
    elsewhere = type(finished_project)(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(finished_project.root)!r}); from flows.cli import main; main()"
    for command in (["run"], ["compare"], ["plan"], ["data", "pull"]):
        done = elsewhere.run(finished_project.command("dvc")[0], "-c", code, *command, code=2)
        assert "dvc.yaml" in done.stderr
        assert "Traceback" not in done.stderr


def test_comparing_before_anything_ran_says_what_to_run(copied: Project) -> None:
    shutil.rmtree(copied.root / "artifacts")
    done = copied.run("stillhouse", "compare", code=2)
    assert "stillhouse run" in done.stderr
