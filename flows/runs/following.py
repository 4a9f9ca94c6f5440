"""Reads a stage's training history while it grows: for the terminal, for Prefect and for MLflow."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flows.runs.display import Display
from flows.runs.pace import Pace
from flows.runs.turns import Turns

log = logging.getLogger(__name__)
FOLLOW_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # a tracking server that hangs must not hold up the pipeline for longer
STOPPED_SECONDS = 1.0  # nor an interrupted run
Listener = Callable[[list[dict[str, Any]]], None]
"""Takes the new lines of a stage's training history."""


@contextlib.contextmanager
def following(path: Path, name: str, display: Display, push: Listener | None, turns: Turns) -> Iterator[None]:
    """Read a growing history while the stage trains; show it and hand its lines on."""
    from flows import artifacts

    with artifacts.progress(name) as show:
        done = threading.Event()
        follower = threading.Thread(
            target=_follow, args=(path, _taker(name, display, push, show), done), daemon=True, name=f"follow {name}"
        )
        follower.start()
        try:
            yield
        finally:
            done.set()
            follower.join(STOPPED_SECONDS if turns.because else PATIENCE_SECONDS)


def _taker(name: str, display: Display, push: Listener | None, show: Callable[[dict[str, Any]], None]) -> Listener:
    """What hands new lines to all who want them."""
    pace = Pace()

    def take(lines: list[dict[str, Any]]) -> None:
        last = lines[-1]
        display.progress(name, last["step"], last["total_steps"], pace.note(last, time.monotonic()))
        try:
            show(last)
        except Exception as error:  # it is for looking at only
            log.warning("the progress of %s could not be shown: %s", name, error)
        if push:
            push(lines)

    return take


def _follow(path: Path, take: Listener, done: threading.Event) -> None:
    position, last = 0, False
    while not last:
        last = done.wait(FOLLOW_SECONDS)
        # The folder is renamed, or removed, when the stage ends; a torn line is for publication to find.
        with contextlib.suppress(OSError, ValueError), path.open(encoding="utf-8") as file:
            file.seek(position)
            whole = file.read().rpartition("\n")[0]
            position += len(whole.encode()) + 1 if whole else 0
            lines = [json.loads(line) for line in whole.splitlines() if line]
            if lines:
                take(lines)
