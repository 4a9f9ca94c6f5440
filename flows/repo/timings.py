"""How long stages took on this machine, for estimates; may be deleted at any time."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from urllib.parse import quote

from flows.repo.workspace import Workspace

FOLDER = "timings"
KEPT, COUNTED = 10, 5
OUTCOMES = {"run": "ran", "depends": "ran", "resume": "ran", "restore": "restored"}
"""For each action of a plan, the outcome whose times say how long it will take."""


def add(workspace: Workspace, stage: str, outcome: str, seconds: float) -> None:
    """Remember how long a stage took that ``ran`` from its beginning to its end, or was ``restored``.

    Any other outcome says nothing about the next run and isn't kept: a stage that was resumed ran for a part only.
    What can't be written is let go.
    """
    if outcome not in OUTCOMES.values():
        return
    path = _path(workspace, stage)
    with contextlib.suppress(OSError), _alone(path.parent):
        times = _read(path)
        times[outcome] = [*times.get(outcome, []), round(seconds, 3)][-KEPT:]
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(times) + "\n", encoding="utf-8")
        draft.replace(path)


def estimate(workspace: Workspace, stage: str, action: str, left: float = 1.0) -> float | None:
    """Seconds that an action of a stage will take: the median of the last times; None when nothing is known.

    ``left`` is the share of the training that is still to be done.
    """
    times = _read(_path(workspace, stage)).get(OUTCOMES.get(action, ""), [])[-COUNTED:]
    return median(times) * left if times else None


def last(workspace: Workspace, stage: str, outcome: str) -> float | None:
    """Seconds that the stage took when it last ``ran``, or was last ``restored``, here; None when that isn't known."""
    times = _read(_path(workspace, stage)).get(outcome, [])
    return times[-1] if times else None


def _path(workspace: Workspace, stage: str) -> Path:
    return workspace.state / FOLDER / f"{quote(stage, safe='')}.json"


def _read(path: Path) -> dict[str, list[float]]:
    """The times by outcome; empty where they are missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(outcome): [float(each) for each in times] for outcome, times in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it is let go when the process ends, however that comes about."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
