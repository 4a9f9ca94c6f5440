"""The records of what was accepted: ``.stillhouse/accepted/STAGE/`` remembers edits that a user vouched for.

A file ``entry-DIGEST.json`` stands for each entry of dvc.lock that was accepted, and ``FINGERPRINT.json``, left by
the stage itself, for a training that went on from an accepted checkpoint, until its result is in dvc.lock too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from components import keeping
from flows.repo import lockfile
from flows.repo.workspace import Workspace


def accepted(workspace: Workspace) -> dict[str, list[str]]:
    """For each stage whose present result was accepted, the code files that were edited after it was made."""
    if not (workspace.root / keeping.ACCEPTED).is_dir():
        return {}
    found = {stage: edited_since(workspace, stage, entry) for stage, entry in workspace.lock_entries().items()}
    return {stage: files for stage, files in found.items() if files}


def edited_since(workspace: Workspace, stage: str, entry: dict[str, Any]) -> list[str]:
    """The files across whose edits an entry of dvc.lock was accepted; none if it wasn't."""
    return _files(_record(workspace, stage, entry))


def remember(workspace: Workspace, stage: str, entry: dict[str, Any], files: list[str]) -> None:
    """Record that an entry of dvc.lock was accepted."""
    keeping.write_json(_record(workspace, stage, entry), {"files": files})


def pending(workspace: Workspace, stage: str) -> bool:
    """Whether the stage has gone on from an accepted checkpoint, and no result of that is known yet."""
    return any(not path.name.startswith("entry-") for path in _folder(workspace, stage).glob("*.json"))


def carry(workspace: Workspace, stage: str, fingerprint: str) -> None:
    """Make the acceptance of a checkpoint one of the result that was trained from it, which dvc.lock holds now."""
    note, entry = _folder(workspace, stage) / f"{fingerprint}.json", workspace.lock_entries().get(stage)
    if entry is not None and (files := _files(note)):
        remember(workspace, stage, entry, files)
        note.unlink(missing_ok=True)


def _folder(workspace: Workspace, stage: str) -> Path:
    return workspace.root / keeping.ACCEPTED / quote(stage, safe="")


def _record(workspace: Workspace, stage: str, entry: dict[str, Any]) -> Path:
    return _folder(workspace, stage) / f"entry-{lockfile.digest(entry)}.json"


def _files(record: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(record.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
