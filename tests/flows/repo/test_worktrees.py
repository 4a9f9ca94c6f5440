"""Worktrees: the checkout's files carried over, its cache and state shared, and the checkout left as it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows.repo import worktrees
from flows.repo.workspace import Workspace
from flows.repo.worktrees import open_worktree, remove
from flows.runs import run_lock
from flows.tracking.store import tracking_uri

Toy = Any
ALL = ("first", "second", "join", "other")


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file that isn't DVC's, git's or the state's, by name."""
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in (".git", ".dvc", ".stillhouse", "data", "artifacts")]
        for path in (Path(folder) / name for name in names if name != ".git"):  # a worktree's is a file
            content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(root))] = path.lstat().st_mode, content
    return found


def status(root: Path) -> str:
    """What git says of a checkout; the toy doesn't ignore .stillhouse."""
    listed = subprocess.run(["git", "status", "--short"], cwd=root, capture_output=True, text=True, check=True).stdout
    return "".join(line for line in listed.splitlines(keepends=True) if ".stillhouse" not in line)


def plan(workspace: Workspace) -> dict[str, str]:
    return {stage.name: stage.action for stage in workspace.plan()}


@contextlib.contextmanager
def at_work(workspace: Workspace, *, killed: bool = False) -> Iterator[None]:
    """The lock as a run of another process holds it, or what is left of one."""
    with (workspace.state / "run.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(
            json.dumps({"pid": 2**22 + 1 if killed else os.getpid(), "host": socket.gethostname(), "start": "x"})
        )
        file.flush()
        yield


def test_in_a_finished_checkouts_worktree_there_is_nothing_to_do_and_nothing_is_copied(toy: Toy) -> None:
    before = status(toy.root)
    worktree = open_worktree(toy.workspace, "a-1")
    assert worktree.root == toy.root / ".stillhouse" / "worktrees" / "a-1"
    assert plan(worktree) == dict.fromkeys(ALL, "skip")
    kept = {path.stat().st_ino for path in (toy.root / ".dvc/cache").rglob("*")}
    assert (worktree.data / "rows.csv").stat().st_ino in kept
    assert (worktree.root / "artifacts/join").stat().st_ino in kept
    assert status(toy.root) == before
    assert files(toy.root) == files(worktree.root)


def test_uncommitted_edits_of_every_kind_are_carried_over(toy: Toy) -> None:
    (toy.root / "gone").write_text("1")
    (toy.root / "moved").write_text("1")
    toy.git("add", ".")
    toy.git("commit", "-qm", "more")
    (toy.root / "gone").unlink()
    toy.git("mv", "moved", "with space\nand line")
    toy.edit("code/other.py", "len", "1 + len")
    (toy.root / "码.bin").write_bytes(bytes(range(256)) * 9 + b"\r\n")
    Path(os.fsdecode(os.fsencode(toy.root) + b"/not-utf8-\xff")).write_text("x")
    (toy.root / "code/link").symlink_to("other.py")
    (toy.root / "code/run.sh").write_text("#!/bin/sh\n")
    (toy.root / "code/run.sh").chmod(0o755)
    toy.git("add", "code/run.sh")
    (toy.root / "code/run.sh").write_text("#!/bin/sh\ntrue\n")  # staged otherwise
    (toy.root / "artifacts/ignored").write_text("no")
    before, index = status(toy.root), (toy.root / ".git/index").read_bytes()
    worktree = open_worktree(toy.workspace, "a")
    assert files(worktree.root) == files(toy.root)
    assert not (worktree.root / "artifacts/ignored").exists()
    assert status(toy.root) == before
    assert (toy.root / ".git/index").read_bytes() == index
    assert plan(worktree) == dict.fromkeys(ALL, "skip") | {"other": "run"}


def test_an_edit_that_is_taken_back_leaves_the_worktree_and_results_stay_in_place(toy: Toy) -> None:
    toy.edit("code/other.py", "len", "1 + len")
    (toy.root / "code/new.py").write_text("1")
    worktree = open_worktree(toy.workspace, "a")
    (worktree.root / "meddled").write_text("1")
    (worktree.root / "code/first.py").write_text("1")
    kept = (worktree.root / "artifacts/join").stat()
    toy.git("checkout", "code/other.py")
    (toy.root / "code/new.py").unlink()
    assert open_worktree(toy.workspace, "a") == worktree
    assert files(worktree.root) == files(toy.root)
    assert (worktree.root / "artifacts/join").stat() == kept
    assert status(worktree.root) == ""


def test_the_lock_and_parameters_are_the_checkouts_though_git_has_them_not(toy: Toy) -> None:
    toy.git("rm", "-q", "--cached", "dvc.lock", "params.yaml")
    (toy.root / ".gitignore").write_text("/data\n/artifacts\nparams.yaml\n")  # DVC refuses an ignored dvc.lock
    toy.git("add", ".gitignore")
    toy.git("commit", "-qm", "ignored")
    assert plan(open_worktree(toy.workspace, "a")) == dict.fromkeys(ALL, "skip")
    (toy.root / "dvc.lock").unlink()
    worktree = open_worktree(toy.workspace, "a")
    assert not (worktree.root / "dvc.lock").exists()
    assert plan(worktree)["first"] == "restore"


def test_what_runs_in_a_worktree_changes_nothing_in_the_checkout_which_restores_it(toy: Toy) -> None:
    before = files(toy.root)
    worktree = open_worktree(toy.workspace, "a")
    there = type(toy)(worktree)
    there.edit("params.yaml", "times: 1", "times: 3")
    assert there.repro() == ["second", "join"]
    assert files(toy.root) == before
    assert toy.plan() == dict.fromkeys(ALL, ("skip", []))
    toy.edit("params.yaml", "times: 1", "times: 3")
    assert plan(toy.workspace) == {"first": "skip", "second": "restore", "join": "depends", "other": "skip"}
    toy.repro()
    assert (toy.root / "dvc.lock").read_bytes() == (worktree.root / "dvc.lock").read_bytes()
    again = open_worktree(toy.workspace, "b")
    assert plan(again) == dict.fromkeys(ALL, "skip")


def test_a_run_leaves_the_cache_as_it_is_though_its_files_are_linked(toy: Toy) -> None:
    there = type(toy)(open_worktree(toy.workspace, "a"))
    cached = {path: path.read_bytes() for path in (toy.root / ".dvc/cache/files").rglob("*") if path.is_file()}
    there.edit("params.yaml", "keep: 2", "keep: 1")
    there.repro()
    assert {path: path.read_bytes() for path in cached} == cached


def test_a_revision_is_checked_out_as_it_was_committed(toy: Toy) -> None:
    toy.git("tag", "v1")
    toy.edit("params.yaml", "times: 1", "times: 2")
    toy.git("commit", "-qam", "second")
    (toy.root / "notes").write_text("mine")
    worktree = open_worktree(toy.workspace, "a")
    assert "times: 2" in (worktree.root / "params.yaml").read_text(encoding="utf-8")
    assert (worktree.root / "notes").exists()
    open_worktree(toy.workspace, "a", "v1")
    assert "times: 1" in (worktree.root / "params.yaml").read_text(encoding="utf-8")
    assert not (worktree.root / "notes").exists()
    assert plan(worktree) == dict.fromkeys(ALL, "skip")


@pytest.mark.parametrize("revision", ["nope", "--help", "HEAD:params.yaml"])
def test_an_unknown_revision_is_refused(toy: Toy, revision: str) -> None:
    with pytest.raises(UserError, match="no git revision"):
        open_worktree(toy.workspace, "a", revision)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", "a b"])
def test_a_name_that_is_no_folder_is_refused(toy: Toy, name: str) -> None:
    with pytest.raises(UserError, match="letters, digits and dashes"):
        open_worktree(toy.workspace, name)


def test_without_a_commit_or_git_the_error_says_what_to_do(new_toy: Toy) -> None:
    with pytest.raises(UserError, match="no commit yet") as caught:
        open_worktree(new_toy.workspace, "a")
    assert "git commit" in caught.value.remedy
    shutil.rmtree(new_toy.root / ".git")
    with pytest.raises(UserError, match="not in a git repository"):
        open_worktree(new_toy.workspace, "a")


def test_a_project_in_a_subfolder_of_its_repository_works(toy: Toy, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    subprocess.run(["git", "init", "-q", outer], check=True)
    shutil.rmtree(toy.root / ".git")
    shutil.move(toy.root, outer / "inner")
    inner = type(toy)(Workspace(outer / "inner"))
    (outer / "shared.py").write_text("1")
    inner.git("add", ":/")
    inner.git("commit", "-qm", "first")
    (outer / "shared.py").write_text("2")
    worktree = open_worktree(inner.workspace, "a")
    assert worktree.root == inner.workspace.state / "worktrees" / "a" / "inner"
    assert (worktree.root.parent / "shared.py").read_text() == "2"
    assert worktree.owner == inner.workspace
    assert open_worktree(inner.workspace, "a") == worktree
    assert plan(worktree) == dict.fromkeys(ALL, "skip")


def test_many_are_opened_at_once(toy: Toy) -> None:
    names = ["a", "b", "a", "c", "a", "b"]
    with ThreadPoolExecutor(len(names)) as pool:
        opened = list(pool.map(lambda name: open_worktree(toy.workspace, name), names))
    assert len(set(opened)) == 3
    assert all(plan(worktree) == dict.fromkeys(ALL, "skip") for worktree in set(opened))


def test_remotes_and_their_credentials_mean_the_same_there(toy: Toy) -> None:
    settings = (
        "[core]\nremote = near\n['remote \"near\"']\nurl = ../../shared\n",
        "['remote \"near\"']\nverify = true\n",
    )
    (toy.root / ".dvc/config").write_text(settings[0])
    (toy.root / ".dvc/config.local").write_text(
        settings[1] + "['remote \"far\"']\nurl = s3://b/c\nendpointurl = 'a,b#c'\n"
    )
    worktree = open_worktree(toy.workspace, "a")
    with worktree.repo() as there, toy.repo() as here:
        assert there.config["remote"] == here.config["remote"]
        assert there.config["core"]["remote"] == "near"
        assert there.config["remote"]["far"]["endpointurl"] == "a,b#c"
    assert (worktree.root / ".dvc/config.local").stat().st_mode & 0o077 == 0
    assert (toy.root / ".dvc/config").read_text() == settings[0]


def test_the_checkouts_own_cache_is_used_wherever_it_is(toy: Toy) -> None:
    shutil.move(toy.root / ".dvc/cache", toy.root.parent / "elsewhere")
    (toy.root / ".dvc/config.local").write_text("[cache]\ndir = ../../elsewhere\n")
    worktree = open_worktree(toy.workspace, "a")
    assert plan(worktree) == dict.fromkeys(ALL, "skip")
    assert not (worktree.root / ".dvc/cache").exists()


def test_state_is_shared_with_the_checkout_and_mlflows_store_has_one_name(toy: Toy) -> None:
    worktree = open_worktree(toy.workspace, "a")
    assert worktree.owner == toy.workspace
    (worktree.state / "checkpoints/x").mkdir()
    assert (toy.workspace.state / "checkpoints/x").is_dir()
    assert tracking_uri(worktree.root) == tracking_uri(toy.root)
    inner = open_worktree(worktree, "b")  # of a worktree: its files, the checkout's state
    assert inner.owner == toy.workspace
    assert inner.root.parent == worktree.root.parent


def test_data_that_the_cache_lacks_comes_from_the_data_folder(toy: Toy) -> None:
    shutil.rmtree(toy.root / ".dvc/cache")
    worktree = open_worktree(toy.workspace, "a")
    worktree.check_data()
    assert not (worktree.root / "artifacts").exists()


def test_data_that_is_nowhere_is_refused(toy: Toy) -> None:
    shutil.rmtree(toy.root / ".dvc/cache")
    shutil.rmtree(toy.root / "data")
    with pytest.raises(UserError, match="neither in data/") as caught:
        open_worktree(toy.workspace, "a")
    assert caught.value.kind == "data"


def test_edited_data_is_refused_as_in_the_checkout(toy: Toy) -> None:
    rows = toy.root / "data/rows.csv"
    rows.chmod(0o644)
    rows.write_text("other")
    with pytest.raises(UserError, match=r"rows\.csv") as caught:
        open_worktree(toy.workspace, "a")
    assert caught.value.kind == "data"
    open_worktree(toy.workspace, "b", "HEAD").check_data()


def test_an_input_that_git_ignores_is_read_where_it_is(toy: Toy) -> None:
    (toy.root / ".gitignore").write_text("/data\n/artifacts\n/extra\n")
    (toy.root / "extra").mkdir()
    (toy.root / "extra/x").write_text("1")
    toy.edit("dvc.yaml", "deps: [code/other.py, ", "deps: [code/other.py, extra, ")
    toy.repro()
    worktree = open_worktree(toy.workspace, "a")
    assert (worktree.root / "extra/x").read_text() == "1"
    assert plan(worktree) == dict.fromkeys(ALL, "skip")


def test_an_input_outside_the_project_by_a_relative_path_is_refused(toy: Toy) -> None:
    (toy.root.parent / "extra").write_text("1")
    toy.edit("dvc.yaml", "deps: [code/other.py, ", "deps: [code/other.py, ../extra, ")
    with pytest.raises(UserError, match="stage other reads") as caught:
        open_worktree(toy.workspace, "a")
    assert "absolute path" in caught.value.remedy


def test_a_worktree_where_a_run_is_at_work_is_left_alone(toy: Toy) -> None:
    worktree = open_worktree(toy.workspace, "a")
    toy.edit("params.yaml", "times: 1", "times: 2")
    with at_work(worktree):
        for refused in (open_worktree, remove):
            with pytest.raises(UserError, match="another run is at work: process") as caught:
                refused(toy.workspace, "a")
            assert caught.value.kind == "busy"
        open_worktree(toy.workspace, "b")
        assert "times: 1" in (worktree.root / "params.yaml").read_text(encoding="utf-8")
    with run_lock.only_run(worktree):  # our own
        open_worktree(toy.workspace, "a")
    assert "times: 2" in (worktree.root / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("if_busy", "killed"), [("wait", False), ("refuse", True)])
def test_a_run_is_waited_for_if_so_asked_and_what_a_killed_one_left_always(
    toy: Toy, if_busy: str, killed: bool
) -> None:
    worktree = open_worktree(toy.workspace, "a")
    toy.edit("params.yaml", "times: 1", "times: 2")
    with contextlib.ExitStack() as run, ThreadPoolExecutor(1) as pool:
        run.enter_context(at_work(worktree, killed=killed))
        opened = pool.submit(open_worktree, toy.workspace, "a", if_busy=if_busy)
        time.sleep(0.5)
        assert not opened.done()
        run.close()
        assert opened.result() == worktree
    assert "times: 2" in (worktree.root / "params.yaml").read_text(encoding="utf-8")


def test_disposable_worktrees_go_when_others_were_used_later_unless_in_use(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worktrees, "KEPT", 1)
    opened = [open_worktree(toy.workspace, name) for name in ("own", "set-1", "set-2", "set-3")]
    for age, worktree in zip((9000, 8000, 7000, 60), opened, strict=True):
        os.utime(worktree.state / "owner", (time.time() - age,) * 2)
    with at_work(opened[1]):
        open_worktree(toy.workspace, "set-4")
    left = {path.name for path in (toy.workspace.state / "worktrees").iterdir()}
    assert left == {".lock", "own", "set-1", "set-3", "set-4"}


def test_a_removed_worktrees_results_stay_in_the_cache_and_git_forgets_it(toy: Toy) -> None:
    there = type(toy)(open_worktree(toy.workspace, "a"))
    there.edit("params.yaml", "times: 1", "times: 3")
    there.repro()
    remove(toy.workspace, "a")
    assert not there.root.exists()
    assert not (toy.root / ".git/worktrees").exists()
    toy.edit("params.yaml", "times: 1", "times: 3")
    assert plan(toy.workspace)["second"] == "restore"
    remove(toy.workspace, "a")


def test_a_copied_checkout_leaves_the_first_ones_worktrees_alone(toy: Toy, tmp_path: Path) -> None:
    worktree = open_worktree(toy.workspace, "a")
    copied = type(toy)(Workspace(Path(shutil.copytree(toy.root, tmp_path / "copied", symlinks=True))))
    copied.edit("params.yaml", "times: 1", "times: 2")
    before = files(worktree.root)
    other = open_worktree(copied.workspace, "a")
    assert other.owner == copied.workspace
    assert "times: 2" in (other.root / "params.yaml").read_text(encoding="utf-8")
    assert files(worktree.root) == before
    assert status(worktree.root) == ""
    assert (other.state / "mlflow").resolve().is_relative_to(copied.root)


def _no_git_file(root: Path) -> None:
    (root / ".git").unlink()


def _stale_locks(root: Path) -> None:
    place = Path((root / ".git").read_text().split()[1])
    for name in ("index.lock", "stillhouse-index.lock"):
        (place / name).write_text("")


def _torn_index(root: Path) -> None:
    (Path((root / ".git").read_text().split()[1]) / "stillhouse-index").write_text("torn")


def _half_removed(root: Path) -> None:
    shutil.rmtree(root)


def _on_a_branch(root: Path) -> None:
    subprocess.run(["git", "switch", "-q", "-c", "own"], cwd=root, check=True)


@pytest.mark.parametrize("harm", [_no_git_file, _stale_locks, _torn_index, _half_removed, _on_a_branch])
def test_a_worktree_that_was_harmed_is_mended(toy: Toy, harm: Callable[[Path], None]) -> None:
    worktree = open_worktree(toy.workspace, "a")
    harm(worktree.root)
    toy.edit("params.yaml", "times: 1", "times: 2")
    toy.git("commit", "-qam", "second")
    assert open_worktree(toy.workspace, "a") == worktree
    assert files(worktree.root) == files(toy.root)
    assert status(worktree.root) == ""
    assert plan(worktree)["second"] == "run"


def test_a_checkout_moved_elsewhere_makes_its_worktrees_anew(toy: Toy, tmp_path: Path) -> None:
    open_worktree(toy.workspace, "a")
    moved = Workspace(Path(shutil.move(toy.root, tmp_path / "moved")))
    worktree = open_worktree(moved, "a")
    assert worktree.owner == moved
    assert plan(worktree) == dict.fromkeys(ALL, "skip")


def test_the_environment_of_a_git_hook_misleads_nobody(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(toy.root / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    worktree = open_worktree(toy.workspace, "a")
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert status(worktree.root) == ""
    assert status(toy.root) == ""


def test_hooks_of_the_repository_do_not_run(toy: Toy) -> None:
    for name in ("post-checkout", "post-index-change"):
        (toy.root / ".git/hooks" / name).write_text(f"#!/bin/sh\ntouch {toy.root.parent}/ran\n")
        (toy.root / ".git/hooks" / name).chmod(0o755)
    open_worktree(toy.workspace, "a")
    assert not (toy.root.parent / "ran").exists()
