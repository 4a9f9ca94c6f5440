"""What a command leaves of its end for the schedule that started it."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import UserError
from flows.runs import ending


def test_the_first_note_counts_and_nobody_who_does_not_ask_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "ending.json"
    ending.note("data", told=True)
    assert ending.read(left) == ("", False)
    monkeypatch.setenv(ending.VARIABLE, str(left))
    ending.note("gate", told=True)
    with pytest.raises(UserError), ending.noted():
        raise UserError("no", "", "data")
    assert ending.read(left) == ("gate", True)


def test_an_error_before_a_run_is_one_that_nobody_was_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "ending.json"
    monkeypatch.setenv(ending.VARIABLE, str(left))
    with pytest.raises(UserError), ending.noted():
        raise UserError("no", "", "parameters")
    assert ending.read(left) == ("parameters", False)
