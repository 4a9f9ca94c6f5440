"""What the last finished run of each deployment was about, under .stillhouse/scheduled/."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

from flows.repo import git
from flows.repo.workspace import Workspace

FOLDER = Path("scheduled")
"""In the project's state folder."""


def blob(owner: Workspace, commit: str, file: str) -> str | None:
    """What identifies the content of a file of the project in that commit; None when it isn't there."""
    found = git.attempt(owner.root, "rev-parse", "--verify", "--quiet", f"{commit}:./{file}")
    return found.stdout.strip() if found.returncode == 0 else None


def kept_lock(owner: Workspace, name: str) -> Path:
    """Where the dvc.lock of the deployment's last finished run is kept."""
    return owner.state / FOLDER / f"{name}.dvc.lock"


def last_finished(owner: Workspace, name: str) -> dict[str, str | None]:
    """The deployment's last run that ended well: its commit, what identifies data.dvc and dvc.lock there; empty
    before the first."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((owner.state / FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    return {}


def note_finished(owner: Workspace, name: str, commit: str, worktree: Workspace) -> None:
    """Record a run that ended well."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    files = {"data": "data.dvc", "lock": "dvc.lock"}
    found = {"commit": commit, **{key: blob(owner, commit, file) for key, file in files.items()}, "finished": finished}
    # The record last: it vouches for the lock.
    _write(kept_lock(owner, name), (worktree.root / "dvc.lock").read_text(encoding="utf-8"))
    _write(owner.state / FOLDER / f"{name}.json", json.dumps(found) + "\n")
    _refused(owner, name).unlink(missing_ok=True)


def note_refused(owner: Workspace, name: str, commit: str) -> None:
    """Record that this commit and its data were refused: they will be refused again."""
    _write(_refused(owner, name), json.dumps([commit, blob(owner, commit, "data.dvc")]) + "\n")


def refused(owner: Workspace, name: str, commit: str) -> bool:
    """Whether the deployment's last run refused this commit and its data."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_refused(owner, name).read_text(encoding="utf-8"))
        return bool(found == [commit, blob(owner, commit, "data.dvc")])
    return False


def _refused(owner: Workspace, name: str) -> Path:
    return owner.state / FOLDER / f"{name}.refused.json"


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
