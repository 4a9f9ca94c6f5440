"""What the folders of data.models hold, as one digest each: stages that read a folder depend on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path


def digests(models: Mapping[str, str], root: Path) -> dict[str, str]:
    """Name -> SHA-256 over the paths, sizes and bytes of all files in the folder, by path; sorted by name."""
    return {name: _digest(root / models[name]) for name in sorted(models)}


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(files):
        path = files[name]
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
