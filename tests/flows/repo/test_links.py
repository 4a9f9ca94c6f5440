"""With links for `cache.type` the project's files and DVC's cache are one on disk, and runs come to the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.repo import integrity
from flows.repo.worktrees import open_worktree

Toy = Any
WAYS = pytest.mark.parametrize("way", ["hardlink", "symlink", "hardlink,symlink"])


def link(toy: Toy, way: str) -> None:
    """What docs/sharing.md says: the setting, and everything put in place anew."""
    with toy.repo() as repo, repo.config.edit("repo") as config:
        config["cache"]["type"] = way
    with toy.repo() as repo:
        repo.checkout(relink=True, force=True)


def results(toy: Toy) -> list[Path]:
    return [path for name in ("data", "artifacts") for path in (toy.root / name).rglob("*") if path.is_file()]


def linked(toy: Toy, path: Path) -> bool:
    """Whether the file is one of DVC's cache."""
    cache = {kept.stat().st_ino for kept in (toy.root / ".dvc/cache/files").rglob("*") if kept.is_file()}
    return path.stat().st_ino in cache


def bytes_on_disk(toy: Toy) -> int:
    """Of data, results and cache, each file once however many names it has."""
    places = [toy.root / name for name in ("data", "artifacts", ".dvc/cache/files")]
    files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum({path.stat().st_ino: path.stat().st_size for path in files}.values())


@WAYS
def test_results_are_the_same_files_as_in_the_cache_and_fill_the_disk_once(toy: Toy, way: str) -> None:
    before = {path.relative_to(toy.root): path.read_bytes() for path in results(toy)}
    copied = bytes_on_disk(toy)
    link(toy, way)
    assert {path.relative_to(toy.root): path.read_bytes() for path in results(toy)} == before
    assert all(linked(toy, path) for path in results(toy))
    once = sum(kept.stat().st_size for kept in (toy.root / ".dvc/cache/files").rglob("*") if kept.is_file())
    assert bytes_on_disk(toy) == once < copied
    assert {action for action, _ in toy.plan().values()} == {"skip"}


@WAYS
def test_stages_write_anew_and_leave_the_cache_alone(toy: Toy, way: str) -> None:
    link(toy, way)
    lock = (toy.root / "dvc.lock").read_text(encoding="utf-8")
    old = {path: path.read_bytes() for path in (toy.root / ".dvc/cache/files").rglob("*") if path.is_file()}
    toy.edit("params.yaml", "keep: 2", "keep: 1")
    assert set(toy.repro()) >= {"first", "second", "join"}
    assert {path: path.read_bytes() for path in old} == old
    assert all(linked(toy, path) for path in results(toy))
    toy.edit("params.yaml", "keep: 1", "keep: 2")
    toy.repro()
    assert (toy.root / "dvc.lock").read_text(encoding="utf-8") == lock


@WAYS
def test_a_damaged_file_of_the_cache_is_found_though_the_result_is_the_same_file(toy: Toy, way: str) -> None:
    link(toy, way)
    path = toy.root / "artifacts/second"
    right, kept = path.read_bytes(), path.resolve()
    kept.chmod(0o644)
    kept.write_bytes(b"XX")
    kept.chmod(0o444)
    assert integrity.discard_damaged(toy.workspace, "second") == ["artifacts/second"]
    assert not os.path.lexists(path)
    assert toy.plan()["first"][0] != "skip"  # one of its files has the same content, and so was the same file
    assert {"first", "second"} <= set(toy.repro())
    assert path.read_bytes() == right == (toy.root / "artifacts/first/part").read_bytes()


@WAYS
def test_new_data_replace_linked_files_without_writing_into_the_cache(toy: Toy, way: str) -> None:
    link(toy, way)
    old = {path: path.read_bytes() for path in (toy.root / ".dvc/cache/files").rglob("*") if path.is_file()}
    draft = toy.root / "rows.new"
    draft.write_text("文本,label\n新,1\n", encoding="utf-8")
    draft.replace(toy.root / "data/rows.csv")
    toy.workspace.add_data()
    assert {path: path.read_bytes() for path in old} == old
    assert linked(toy, toy.root / "data/rows.csv")
    assert toy.repro()


def test_worktrees_use_the_links_that_the_project_is_set_to(toy: Toy) -> None:
    link(toy, "symlink")
    toy.git("add", ".")
    toy.git("commit", "--quiet", "-m", "links")
    worktree = open_worktree(toy.workspace, "linked", "HEAD")
    try:
        assert (worktree.root / "data/rows.csv").is_symlink()
        assert {stage.action for stage in worktree.plan()} == {"skip"}
    finally:
        shutil.rmtree(worktree.root)


def test_with_reflinks_in_the_list_what_stages_write_stays_on_disk_twice(toy: Toy) -> None:
    """Why the documented list has none."""
    link(toy, "reflink,hardlink")
    toy.edit("params.yaml", "keep: 2", "keep: 1")
    toy.repro()
    assert not linked(toy, toy.root / "artifacts/first/part")
