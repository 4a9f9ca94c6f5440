"""Seals a folder of a checkpoint: its last file lists the others, so that a half-written or damaged one is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SEAL = "whole.json"
loaded: list[Path] = []
"""The sealed folders that this process went on from, for the launcher to know."""


def seal(folder: Path, **said: Any) -> None:
    """Write down size and sha256 of every file in ``folder``, and what else is to be known of it.

    Nothing is flushed to the disk: after a power failure the digests tell what got there.
    """
    files = {path.name: [path.stat().st_size, _digest(path)] for path in sorted(folder.iterdir()) if path.name != SEAL}
    draft = folder / f"{SEAL}.new"
    draft.write_text(json.dumps({"said": said, "files": files}), encoding="utf-8")
    draft.replace(folder / SEAL)


def said_of(folder: Path) -> dict[str, Any] | None:
    """What was said when ``folder`` was sealed; None if it wasn't, or a file is missing or has another size."""
    found = _read(folder)
    if found is None:
        return None
    try:
        whole = all((folder / name).stat().st_size == size for name, (size, _) in found["files"].items())
    except OSError:
        return None
    said: dict[str, Any] = found["said"]
    return said if whole else None


def is_whole(folder: Path) -> bool:
    """Whether every file of a sealed folder has the bytes that it had then."""
    found = _read(folder)
    if found is None or said_of(folder) is None:
        return False
    try:
        return all(_digest(folder / name) == digest for name, (_, digest) in found["files"].items())
    except OSError:
        return False


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"said", "files"} <= found.keys() else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
