"""The commands that make results again: they run as written, in an empty folder, and tell a result that differs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.repo import revisions
from flows.reporting.evidence import Evidence, Origin
from flows.reporting.reproduce import Source, commands, source

Gather = Callable[..., Evidence]
Toy = Any
RUN = "0123456789"
ROOT = Path(__file__).parents[3]
# What the project's own Makefile installs: here, this interpreter and this code.
SETUP = f"""\
setup:
\tmkdir -p .venv/bin
\techo 'PATH="$$PWD/.venv/bin:$$PATH"' > .venv/bin/activate
\tprintf '#!/bin/sh\\nPYTHONPATH={ROOT} exec {sys.executable} -m flows.cli "$$@"\\n' > .venv/bin/stillhouse
\tprintf '#!/bin/sh\\nexec {sys.executable} -m dvc "$$@"\\n' > .venv/bin/dvc
\tchmod +x .venv/bin/*
"""


@pytest.fixture
def again(toy: Toy, evidence: Gather, tmp_path: Path) -> Callable[[], subprocess.CompletedProcess[str]]:
    """Records the toy's results and types the commands in an empty folder."""
    (toy.root / "Makefile").write_text(SETUP)
    toy.git("add", "Makefile")
    toy.git("commit", "-qm", "make")

    def typed() -> subprocess.CompletedProcess[str]:
        revision = revisions.record(toy.workspace, RUN, "a run")
        assert revision
        text = commands(evidence(Origin(RUN, None, revision.commit)), source(toy.workspace))
        (tmp_path / "elsewhere").mkdir()
        command = ["bash", "-ec", text]
        return subprocess.run(
            command, cwd=tmp_path / "elsewhere", env=os.environ, capture_output=True, text=True, check=False
        )

    return typed


def test_the_commands_make_the_same_again_from_nothing(toy: Toy, again: Any) -> None:
    done = again()
    assert not done.returncode, done.stderr
    assert done.stdout.count("Running stage") == 4


def test_a_result_that_differs_is_told_in_a_clone_of_the_remote(toy: Toy, again: Any, tmp_path: Path) -> None:
    toy.git("clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    toy.git("remote", "add", "origin", "../origin.git")
    assert source(toy.workspace).repository == str(tmp_path / "origin.git")
    toy.edit("dvc.lock", toy.workspace.lock_entries()["join"]["outs"][0]["md5"], "f" * 32)
    done = again()
    assert done.returncode == 1, done.stderr
    assert f"-      md5: {'f' * 32}\n" in done.stdout


def test_what_was_not_recorded_is_compared_in_its_own_folder(evidence: Gather) -> None:
    told = commands(evidence(Origin(RUN)), Source(repository="/somewhere"))
    assert "git" not in told
    assert told.splitlines()[1] == "cp dvc.lock recorded.lock"
    assert told.endswith("\ndvc repro --force && diff recorded.lock dvc.lock")


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Source(remote="store", public=False), "from the DVC remote 'store'"),
        (Source(public=True), "built from public packages"),
        (Source(public=False, data=Path("/my data")), "copied, since no DVC remote is set\ncp -RL '/my data' data"),
        (Source(public=False), "has to be copied to data/ here before, since no DVC remote is set"),
    ],
)
def test_where_the_data_comes_from_is_said(evidence: Gather, known: Source, said: str) -> None:
    told = commands(evidence(), known)
    assert said in told
    assert "stillhouse data pull" in told.splitlines()


def test_a_project_in_a_part_of_its_repository_is_entered_there(evidence: Gather) -> None:
    told = commands(evidence(), Source(repository="https://host/a b.git", place="models/my reviews/"))
    assert "git clone 'https://host/a b.git' stillhouse-again && cd 'stillhouse-again/models/my reviews'\n" in told
    assert f"git fetch origin refs/stillhouse/{RUN} && git checkout c0ffee\n" in told
    assert told.endswith(" && git diff --exit-code c0ffee -- dvc.lock")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@host/project.git", "https://host/project.git"),
        ("https://token@host/project.git", "https://host/project.git"),
        ("ssh://git:secret@host/project.git", "ssh://git@host/project.git"),
        ("git@host:project.git", "git@host:project.git"),
    ],
)
def test_the_address_to_clone_is_the_remotes_without_secrets(toy: Toy, address: str, shown: str) -> None:
    toy.git("remote", "add", "origin", address)
    found = source(toy.workspace)
    assert (found.repository, found.data, found.place, found.public) == (shown, None, "", False)
