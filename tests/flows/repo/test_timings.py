"""How long stages took: kept whole whoever writes, and what is made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.repo import timings
from flows.repo.workspace import Workspace

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def kept(workspace: Workspace, stage: str = "teacher") -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((workspace.state / "timings" / f"{stage}.json").read_text())
    return found


def test_nothing_is_known_before_the_first_run(workspace: Workspace) -> None:
    for action in ("run", "resume", "restore", "depends", "skip"):
        assert timings.estimate(workspace, "teacher", action) is None
    assert not workspace.state.exists()


def test_the_estimate_is_the_median_of_the_last_five_times(workspace: Workspace) -> None:
    for seconds in (900, 900, 900, 10, 30, 20, 500, 40):
        timings.add(workspace, "teacher", "ran", seconds)
    assert timings.estimate(workspace, "teacher", "run") == 30
    assert timings.estimate(workspace, "teacher", "depends") == 30
    assert timings.estimate(workspace, "teacher", "resume", 0.25) == 7.5
    assert timings.estimate(workspace, "teacher", "restore") is None
    assert timings.estimate(workspace, "label", "run") is None
    timings.add(workspace, "teacher", "restored", 0.5)
    assert timings.estimate(workspace, "teacher", "restore") == 0.5
    assert timings.estimate(workspace, "teacher", "skip") is None


def test_the_last_time_of_an_outcome_is_known(workspace: Workspace) -> None:
    for seconds in (9, 7):
        timings.add(workspace, "teacher", "ran", seconds)
    assert timings.last(workspace, "teacher", "ran") == 7
    assert timings.last(workspace, "teacher", "restored") is None


def test_the_last_ten_of_each_outcome_are_kept(workspace: Workspace) -> None:
    for number in range(12):
        timings.add(workspace, "teacher", "ran", number)
    timings.add(workspace, "teacher", "restored", 1.23456)
    assert kept(workspace) == {"ran": list(range(2, 12)), "restored": [1.235]}


@pytest.mark.parametrize("outcome", ["unchanged", "resumed", "failed"])
def test_what_says_nothing_about_the_next_run_is_not_kept(workspace: Workspace, outcome: str) -> None:
    timings.add(workspace, "teacher", outcome, 1.0)
    assert not workspace.state.exists()


def test_a_stage_of_another_dvc_yaml_has_a_file_of_its_own(workspace: Workspace) -> None:
    timings.add(workspace, "sub/dvc.yaml:训练", "ran", 3.0)
    assert timings.estimate(workspace, "sub/dvc.yaml:训练", "run") == 3.0
    assert timings.estimate(workspace, "dvc.yaml:训练", "run") is None


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"ran": 3}', '{"ran": ["x"]}', "\xff"])
def test_a_damaged_file_counts_as_none_and_is_written_anew(workspace: Workspace, content: str) -> None:
    timings.add(workspace, "teacher", "ran", 1.0)
    (workspace.state / "timings" / "teacher.json").write_bytes(content.encode("latin-1"))
    assert timings.estimate(workspace, "teacher", "run") is None
    timings.add(workspace, "teacher", "ran", 2.0)
    assert timings.estimate(workspace, "teacher", "run") == 2.0


def test_a_folder_that_cannot_be_written_stops_nothing(workspace: Workspace) -> None:
    workspace.state.mkdir()
    (workspace.state / "timings").write_text("a file")
    timings.add(workspace, "teacher", "ran", 1.0)
    assert timings.estimate(workspace, "teacher", "run") is None


def test_processes_that_write_at_once_lose_nothing(workspace: Workspace) -> None:
    code = f"""
from pathlib import Path
from flows.repo import timings
from flows.repo.workspace import Workspace
for number in range(2):
    timings.add(Workspace(Path({str(workspace.root)!r})), "teacher", "ran", number)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(5)]
    assert [writer.wait(60) for writer in writers] == [0] * 5
    assert sorted(kept(workspace)["ran"]) == [0] * 5 + [1] * 5
