"""A stage that failed is told in the words that help: its own, a full disk, DVC busy, a signal."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import errors
from components.errors import UserError
from flows.runs import retries
from flows.runs.failures import StageFailed, failure


def test_the_stages_own_error_comes_first(tmp_path: Path) -> None:
    errors.record("teacher", UserError("数据不合格", "Mend it.", "gate"), tmp_path / errors.ERROR_FOLDER)
    found = failure(tmp_path, "teacher", 255, ["No space left on device"])
    assert (str(found), getattr(found, "kind", "")) == ("数据不合格\nMend it.", "gate")


def test_dvc_that_is_busy_is_worth_another_attempt(tmp_path: Path) -> None:
    lines = ["ERROR: 'artifacts/first' is busy, it is being blocked by:", "  (PID 12): dvc repro"]
    found = failure(tmp_path, "first", 255, lines)
    assert retries.transient(found)
    assert "artifacts/first" in str(found)


@pytest.mark.parametrize(("code", "line"), [(137, ""), (255, "ERROR: failed to reproduce 'x': x, exited with -9")])
def test_a_killed_stage_says_that_it_can_go_on(tmp_path: Path, code: int, line: str) -> None:
    found = failure(tmp_path, "distill", code, [line])
    assert "killed by signal 9, as the system does when memory runs out" in str(found)
    assert not retries.transient(found)


def test_anything_else_shows_the_end_of_the_output(tmp_path: Path) -> None:
    found = failure(tmp_path, "distill", 255, ["坏了", "", "ERROR: no"])
    assert isinstance(found, StageFailed)
    assert str(found) == "The stage distill ended with code 255. The end of its output:\n坏了\nERROR: no"


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: [Errno 13] Permission denied: '/p/data/rows.csv'",
        "OSError: [Errno 30] Read-only file system: 'artifacts/x'",
    ],
)
def test_a_file_that_may_not_be_read_or_written_is_named_whichever_it_was(tmp_path: Path, line: str) -> None:
    found = failure(tmp_path, "distill", 255, [line])
    assert isinstance(found, UserError)
    assert found.message == f"distill could not read or write a file: {line.removeprefix('ERROR: ')}"
    assert "readable" in found.remedy
    assert found.kind == "disk"
