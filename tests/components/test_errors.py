"""Errors for people: kept where the flow finds them, and a full disk is recognised whoever raises it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from components import errors
from components.errors import UserError


def test_an_error_is_recalled_as_it_was_recorded(tmp_path: Path) -> None:
    errors.record("validate", UserError("缺少列 text", "Name the column.", "data"), tmp_path)
    found = errors.recall("validate", tmp_path)
    assert found is not None
    assert (found.message, found.remedy, found.kind) == ("缺少列 text", "Name the column.", "data")
    assert errors.recall("teacher", tmp_path) is None
    errors.forget("validate", tmp_path)
    assert errors.recall("validate", tmp_path) is None


@pytest.mark.parametrize("torn", ["", '{"message": "the di', '{"message": "no more"}'])
def test_an_error_torn_by_a_full_disk_counts_as_none(tmp_path: Path, torn: str) -> None:
    (tmp_path / "teacher.json").write_text(torn)
    assert errors.recall("teacher", tmp_path) is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        ValueError("database or disk is full"),
    ],
)
def test_a_full_disk_is_recognised(error: Exception) -> None:
    found = errors.disk_full(error)
    assert found is not None
    assert found.kind == "disk"


def test_other_errors_are_no_full_disk() -> None:
    assert errors.disk_full(ValueError("no")) is None
