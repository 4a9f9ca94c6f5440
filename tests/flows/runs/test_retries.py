"""Faults that may pass are tried again after growing pauses; mistakes are told at once."""

from __future__ import annotations

import time

import pytest

from components.errors import UserError
from flows.runs import retries


def test_only_faults_that_may_pass_are_tried_again() -> None:
    assert all(retries.transient(UserError("", "", kind)) for kind in ("busy", "network", "remote", "tracking"))
    kinds = ("data", "parameters", "gate", "pipeline", "model", "disk", "runtime", "server", "user", "cancelled")
    assert not any(retries.transient(UserError("", "", kind)) for kind in kinds)
    assert not retries.transient(RuntimeError("network"))


def test_the_pauses_grow_and_a_runs_end_waits_less_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(retries.VARIABLE, raising=False)
    found = retries.delays()
    assert found == sorted(found)
    assert sum(found) * (1 + retries.JITTER) < 60


@pytest.mark.parametrize(("text", "expected"), [("", []), ("0.1,0.2", [0.1, 0.2]), (" 1 ", [1.0]), ("-3", [0.0])])
def test_the_environment_sets_the_pauses(monkeypatch: pytest.MonkeyPatch, text: str, expected: list[float]) -> None:
    monkeypatch.setenv(retries.VARIABLE, text)
    assert retries.delays() == expected


def test_pauses_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(retries.VARIABLE, "soon")
    with pytest.raises(UserError, match="soon"):
        retries.delays()


def attempts(monkeypatch: pytest.MonkeyPatch, kind: str, fails: int) -> tuple[int, list[str], Exception | None]:
    """How often something is tried that fails so many times, what is said, and what is raised in the end."""
    monkeypatch.setenv(retries.VARIABLE, "0.01,0.01")
    tried: list[float] = []
    said: list[str] = []

    def action() -> str:
        tried.append(time.monotonic())
        if len(tried) <= fails:
            raise UserError("away.", "", kind)
        return "done"

    try:
        assert retries.again(action, said.append) == "done"
    except UserError as error:
        return len(tried), said, error
    return len(tried), said, None


def test_what_passes_is_done_in_the_end_and_each_pause_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, said, error = attempts(monkeypatch, "tracking", fails=2)
    assert (tried, error) == (3, None)
    assert said == ["away. Trying again in 0 s."] * 2


def test_what_does_not_pass_is_raised_after_the_last_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, _, error = attempts(monkeypatch, "tracking", fails=9)
    assert tried == 3
    assert isinstance(error, UserError)


def test_a_mistake_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, said, error = attempts(monkeypatch, "data", fails=9)
    assert (tried, said) == (1, [])
    assert error is not None
