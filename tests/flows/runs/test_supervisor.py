"""The supervisor survives members of the group that it may not send signals to; the rest is in test_processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from flows.runs import supervisor


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that were sent to a group of which every member has become another user's."""
    sent: list[int] = []

    def killpg(group: int, number: int) -> None:
        sent.append(number)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", killpg)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    return sent


@pytest.fixture
def starter() -> Iterator[tuple[int, int]]:
    """Both ends of the pipe that tells of the starter's death."""
    watched, held = os.pipe()
    yield watched, held
    os.close(watched)


@pytest.mark.usefixtures("forbidden")
def test_the_exit_code_is_told_though_the_group_has_another_users_member(starter: tuple[int, int]) -> None:
    watched, held = starter
    assert supervisor.main(watched, [sys.executable, "-S", "-c", "raise SystemExit(7)"]) == 7
    os.close(held)


def test_a_group_that_may_not_be_signalled_is_waited_for(forbidden: list[int], starter: tuple[int, int]) -> None:
    watched, held = starter
    os.close(held)
    started = time.monotonic()
    assert supervisor.main(watched, ["sleep", "0.6"], 0.2) == 0
    assert time.monotonic() - started >= 0.6
    assert {signal.SIGTERM, signal.SIGKILL} <= set(forbidden)


def test_a_group_that_is_gone_ends_the_grace_period() -> None:
    child = subprocess.Popen(["sleep", "30"], process_group=0)
    started = time.monotonic()
    supervisor.end_group(child, 30.0)
    assert time.monotonic() - started < 10
    assert child.returncode == -15
