"""Recorded revisions: commits on no branch that results can be made again from, and `stillhouse commit`."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from components.errors import UserError
from flows import cli
from flows.commands.commit import commit
from flows.repo import revisions
from flows.repo.revisions import commit_lock, find_recorded, list_recorded, record
from flows.repo.workspace import Workspace
from flows.repo.worktrees import open_worktree

Toy = Any
RUN, OTHER = "0123456789abcdef", "0123459999999999"
RUN_REF = f"refs/stillhouse/{RUN}"


@pytest.fixture(autouse=True)
def _nobody_told_git_a_name(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in list(os.environ):
        if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER")) or name in (
            "EMAIL",
            "XDG_CONFIG_HOME",
            "GIT_CONFIG_GLOBAL",
        ):
            monkeypatch.delenv(name)


def git(root: Path, *arguments: str) -> str:
    """What git prints."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def state(root: Path) -> tuple[Any, ...]:
    """All that recording must leave alone."""
    listed = [line for line in git(root, "status", "--short").splitlines() if ".stillhouse" not in line]
    return git(root, "rev-parse", "HEAD"), git(root, "branch", "-a"), (root / ".git/index").read_bytes(), listed


@pytest.fixture
def remote(toy: Toy, tmp_path: Path) -> Path:
    """A bare git repository that the toy has as `origin`."""
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "origin.git"], check=True)
    toy.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    return tmp_path / "origin.git"


def test_the_files_as_they_are_are_recorded_and_nothing_else_changes(toy: Toy) -> None:
    (toy.root / ".gitignore").write_text("/data\n/artifacts\nparams.yaml\n")
    toy.git("rm", "-q", "--cached", "params.yaml", "dvc.lock", "code/second.py")
    toy.git("commit", "-qm", "fewer")
    toy.edit("code/other.py", "len", "1 + len")
    toy.repro()
    (toy.root / "private notes").write_text("mine")
    (toy.root / "artifacts/large").write_text("no")
    before = state(toy.root)
    revision = record(toy.workspace, RUN, "a run\n\nof the toy")
    assert revision is not None
    assert revision.remote is None
    assert state(toy.root) == before
    assert git(toy.root, "rev-parse", f"refs/stillhouse/{RUN}", f"{RUN_REF}^").split() == [revision.commit, before[0]]
    for name in ("dvc.lock", "params.yaml", "data.dvc", "code/other.py", "code/second.py", ".dvc/config"):
        assert git(toy.root, "show", f"{RUN_REF}:{name}") == (toy.root / name).read_text(encoding="utf-8").strip()
    names = git(toy.root, "ls-tree", "-r", "--name-only", RUN_REF).splitlines()
    assert not [name for name in names if name.startswith(("private", "artifacts", "data/", ".stillhouse"))]
    assert git(toy.root, "log", "-1", "--format=%an %ae %cn|%B", RUN_REF) == (
        "Stillhouse stillhouse@localhost Stillhouse|a run\n\nof the toy"
    )


def test_the_name_that_git_knows_is_used_and_nothing_is_signed_nor_hooked(toy: Toy) -> None:
    toy.git("config", "user.name", "Ann")
    toy.git("config", "commit.gpgSign", "true")
    toy.git("config", "gpg.program", "false")
    (toy.root / ".git/hooks/reference-transaction").write_text("#!/bin/sh\nexit 1\n")
    (toy.root / ".git/hooks/reference-transaction").chmod(0o755)
    revision = record(toy.workspace, RUN, "a run")
    assert revision is not None
    assert git(toy.root, "log", "-1", "--format=%an %ae", revision.commit) == "Ann stillhouse@localhost"


def test_the_same_files_are_recorded_once_and_others_anew(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    first = record(toy.workspace, RUN, "a run")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2001-02-03T04:05:06Z")
    assert record(toy.workspace, RUN, "a run") == first
    toy.edit("params.yaml", "times: 1", "times: 2")
    assert record(toy.workspace, RUN, "a run") != first


def test_without_git_or_a_commit_there_is_nothing_to_record(new_toy: Toy) -> None:
    assert record(new_toy.workspace, RUN, "a run") is None


def test_only_the_ref_is_pushed_and_again_if_it_was_lost(toy: Toy, remote: Path) -> None:
    (toy.root / ".git/hooks/pre-push").write_text("#!/bin/sh\nexit 1\n")
    (toy.root / ".git/hooks/pre-push").chmod(0o755)
    toy.git("tag", "-a", "-m", "t", "v1")
    toy.git("config", "push.followTags", "true")
    revision = record(toy.workspace, RUN, "a run")
    assert revision is not None
    assert revision.remote == "origin"
    assert git(remote, "for-each-ref", "--format=%(refname) %(objectname)") == f"{RUN_REF} {revision.commit}"
    git(remote, "update-ref", "-d", RUN_REF)
    assert record(toy.workspace, RUN, "a run") == revision
    toy.edit("params.yaml", "times: 1", "times: 2")
    later = record(toy.workspace, RUN, "a run")
    assert later is not None
    assert git(remote, "rev-parse", RUN_REF) == later.commit != revision.commit


def test_the_branchs_own_remote_comes_before_origin_also_in_a_worktree(toy: Toy, remote: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "own.git"], check=True)
    branch = git(toy.root, "branch", "--show-current")
    toy.git("remote", "add", "own", str(tmp_path / "own.git"))
    toy.git("config", f"branch.{branch}.remote", "own")
    revision = record(open_worktree(toy.workspace, "a"), RUN, "a run")
    assert revision is not None
    assert revision.remote == "own"
    assert git(tmp_path / "own.git", "rev-parse", RUN_REF) == revision.commit
    assert not git(remote, "for-each-ref")


def test_a_push_that_fails_says_so_without_passwords_and_the_ref_is_there(toy: Toy, tmp_path: Path) -> None:
    toy.git("remote", "add", "origin", "https://me:secret@127.0.0.1:9/x.git")
    with pytest.raises(UserError, match="could not be pushed") as caught:
        record(toy.workspace, RUN, "a run")
    assert caught.value.kind == "network"
    assert "secret" not in str(caught.value)
    assert f"git push origin {RUN_REF}" in caught.value.remedy
    assert list_recorded(toy.workspace)[0].ref == RUN_REF


def test_a_push_that_hangs_is_ended_with_all_it_started(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.git("remote", "add", "origin", "ssh://example.invalid/x.git")
    monkeypatch.setenv("GIT_SSH_COMMAND", "sleep 30 #")
    monkeypatch.setattr(revisions, "_PUSH_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"no end within") as caught:
        record(toy.workspace, RUN, "a run")
    assert caught.value.kind == "network"


def test_a_run_in_a_worktree_is_recorded_with_its_own_parameters(toy: Toy) -> None:
    toy.edit("code/other.py", "len", "1 + len")
    (toy.root / "private notes").write_text("mine")
    worktree = open_worktree(
        toy.workspace, "a", replacing={"params.yaml": "first: {words: {keep: 1}}\nsecond: {times: 1}\n"}
    )
    type(toy)(worktree).repro()
    revision = record(worktree, RUN, "a run")
    assert revision is not None
    assert "keep: 1" in git(toy.root, "show", f"{revision.commit}:params.yaml")
    assert "1 + len" in git(toy.root, "show", f"{revision.commit}:code/other.py")
    assert git(toy.root, "show", f"{revision.commit}:dvc.lock") == (worktree.root / "dvc.lock").read_text().strip()
    assert "private notes" not in git(toy.root, "ls-tree", "-r", "--name-only", revision.commit)


def test_a_recorded_run_is_restored_in_a_fresh_clone_without_computing(toy: Toy, remote: Path, tmp_path: Path) -> None:
    branch = git(toy.root, "branch", "--show-current")
    toy.git("push", "-q", "origin", branch)
    worktree = open_worktree(toy.workspace, "a")
    there = type(toy)(worktree)
    there.edit("params.yaml", "times: 1", "times: 3")
    there.repro()
    record(worktree, RUN, "a run")
    with there.repo() as repo, repo.config.edit("local") as config:
        config["remote"]["shared"] = {"url": str(tmp_path / "shared")}
    with there.repo() as repo:
        repo.push(remote="shared", run_cache=True)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-checkout", "-b", branch, str(remote), "clone")
    git(clone, "fetch", "-q", "origin", "refs/stillhouse/*:refs/stillhouse/*")
    git(clone, "checkout", "-q", RUN_REF)
    cloned = type(toy)(Workspace(clone))
    with cloned.repo() as repo, repo.config.edit("local") as config:
        config["remote"]["shared"] = {"url": str(tmp_path / "shared")}
        config["core"]["remote"] = "shared"
    with cloned.repo() as repo:
        repo.pull(targets=["data.dvc"])
    with contextlib.chdir(clone), cloned.repo() as repo:
        # Scripts that differ from those of the run would be computed, and fail.
        assert [stage.addressing for stage in repo.reproduce(pull=True)] == []
    assert (clone / "artifacts/join").read_bytes() == (worktree.root / "artifacts/join").read_bytes()
    assert not git(clone, "status", "--short")
    assert all(planned == ("skip", []) for planned in cloned.plan().values())


@pytest.fixture
def named(toy: Toy) -> Toy:
    """A toy whose owner git knows."""
    toy.git("config", "user.name", "Ann")
    toy.git("config", "user.email", "ann@example.org")
    return toy


def runs(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recorded runs: RUN with times 3 in a worktree, and later OTHER with times 2 in the checkout."""
    worktree = open_worktree(toy.workspace, "a")
    for there, times, run, date in ((type(toy)(worktree), 3, RUN, "2026-01-01"), (toy, 2, OTHER, "2026-01-02")):
        there.edit("params.yaml", "times: 1", f"times: {times}")
        there.repro()
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"{date}T00:00:00Z")
        record(there.workspace, run, "a run")
    monkeypatch.delenv("GIT_COMMITTER_DATE")


def test_the_last_runs_lock_and_parameters_alone_are_committed(named: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(named, monkeypatch)
    named.edit("code/other.py", "len", "1 + len")
    (named.root / "staged").write_text("1")
    named.git("add", "staged")
    head = git(named.root, "rev-parse", "HEAD")
    commit = commit_lock(named.workspace)
    assert commit == git(named.root, "rev-parse", "HEAD")
    assert git(named.root, "rev-parse", "HEAD^") == head
    assert git(named.root, "show", "--format=%s", "--name-only", "HEAD").split("\n") == [
        f"Results of run {OTHER}",
        "",
        "dvc.lock",
        "params.yaml",
    ]
    assert git(named.root, "diff", "--name-only", "--cached") == "staged"
    assert git(named.root, "diff", "--name-only") == "code/other.py"
    assert commit_lock(named.workspace) is None


def test_a_run_made_elsewhere_is_committed_when_nothing_is_lost_by_it(
    named: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(named, monkeypatch)
    before = (named.root / "params.yaml").read_text(), git(named.root, "rev-parse", "HEAD")
    with pytest.raises(UserError, match=r"dvc\.lock has other changes than those of run") as caught:
        commit_lock(named.workspace, RUN)
    assert "git checkout HEAD -- dvc.lock" in caught.value.remedy
    assert before == ((named.root / "params.yaml").read_text(), git(named.root, "rev-parse", "HEAD"))
    named.git("checkout", "HEAD", "--", "dvc.lock", "params.yaml")
    commit_lock(named.workspace, RUN[:8])
    assert "times: 3" in (named.root / "params.yaml").read_text()
    assert {stage.action for stage in named.workspace.plan()} <= {"skip", "restore", "depends"}
    assert not git(named.root, "diff", "--name-only")


def test_what_is_staged_of_these_files_is_not_lost(named: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(named, monkeypatch)
    recorded = (named.root / "params.yaml").read_text()
    (named.root / "params.yaml").write_text(recorded + "third: 1\n")
    named.git("add", "params.yaml")
    (named.root / "params.yaml").write_text(recorded)
    with pytest.raises(UserError, match=r"params\.yaml in git's index has other changes"):
        commit_lock(named.workspace)


def test_files_that_git_did_not_have_are_committed_too(named: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    named.git("rm", "-q", "--cached", "dvc.lock")
    named.git("commit", "-qm", "no lock")
    runs(named, monkeypatch)
    commit_lock(named.workspace)
    assert git(named.root, "show", "HEAD:dvc.lock") == (named.root / "dvc.lock").read_text().strip()


@pytest.mark.parametrize("nameless", [True, False])
def test_a_commit_that_git_refuses_changes_nothing(named: Toy, nameless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(named, monkeypatch)
    named.git("checkout", "HEAD", "--", "dvc.lock", "params.yaml")
    if nameless:
        named.git("config", "--unset", "user.name")
        named.git("config", "--unset", "user.email")
        named.git("config", "user.useConfigOnly", "true")
    else:
        (named.root / ".git/hooks/pre-commit").write_text("#!/bin/sh\necho not today; exit 1\n")
        (named.root / ".git/hooks/pre-commit").chmod(0o755)
    before = state(named.root)[:2], (named.root / "dvc.lock").read_bytes(), git(named.root, "diff", "HEAD")
    with pytest.raises(UserError, match="tell me who you are" if nameless else "not today"):
        commit_lock(named.workspace, RUN)
    assert (state(named.root)[:2], (named.root / "dvc.lock").read_bytes(), git(named.root, "diff", "HEAD")) == before


def test_without_a_branch_nothing_is_committed(named: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(named, monkeypatch)
    named.git("switch", "-q", "--detach")
    with pytest.raises(UserError, match="No branch"):
        commit_lock(named.workspace)


def test_runs_are_found_by_the_beginning_of_their_ids(named: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="No run is recorded"):
        find_recorded(named.workspace)
    runs(named, monkeypatch)
    assert [revision.run for revision in list_recorded(named.workspace)] == [OTHER, RUN]
    assert find_recorded(named.workspace).run == OTHER
    assert find_recorded(named.workspace, RUN[:7]).run == RUN
    for run, message in ((RUN[:5], "at least its first 6"), (RUN[:6], "Several runs"), ("999999", "No run '999999'")):
        with pytest.raises(UserError, match=message):
            find_recorded(named.workspace, run)


def test_the_command_says_what_it_committed_and_what_it_left_out(named: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(cls=cli.Commands)
    app.command()(commit)
    app.command("other")(lambda: None)
    named.edit("code/other.py", "len", "1 + len")
    runs(named, monkeypatch)
    monkeypatch.chdir(named.root / "code")
    monkeypatch.setattr("flows.settings.apply", lambda root: None)  # it is for a process of its own
    said = CliRunner().invoke(app, ["commit"]).output
    again = CliRunner().invoke(app, ["commit", OTHER])
    wrong = CliRunner().invoke(app, ["commit", "nothing"])
    assert f"Committed the dvc.lock and params.yaml of run {OTHER} as " in said
    assert "other versions of code/other.py than the branch has" in said
    assert again.output.startswith("Nothing to commit: the branch has")
    assert (again.exit_code, wrong.exit_code) == (0, 2)
