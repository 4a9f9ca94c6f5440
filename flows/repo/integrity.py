"""Whether restored outputs are what dvc.lock says; DVC itself trusts every read-only file of its cache.

A file of the cache with wrong bytes is read-only as all of them, so DVC would restore it and take note of it
as right.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import UserError
from flows.repo.workspace import Workspace

_BLOCK = 2**20


def discard_wrong_listings(workspace: Workspace) -> list[str]:
    """Remove from DVC's cache the listings of folders that aren't what their names say; call it before restoring.

    Afterwards is too late: DVC takes the hash of what it has restored by a wrong listing down in dvc.lock.

    Returns:
        The names of those removed.
    """
    with workspace.repo() as repo:
        listings = Path(repo.cache.local.path).glob("??/*.dir")
        wrong = [path for path in listings if _md5(path) != path.parent.name + path.stem]
    for path in wrong:
        _discard(path)
    return [path.parent.name + path.name for path in wrong]


def discard_damaged(workspace: Workspace, stage: str) -> list[str]:
    """Compare the outputs of ``stage`` with the hashes in dvc.lock; remove what differs, and wrong files of the cache.

    Returns:
        The outputs that were wrong, by path: bringing the stage up to date makes them anew.
    """
    outs = [out for out in workspace.lock_entries()[stage].get("outs", []) if out.get("hash") == "md5"]
    wrong = []
    with workspace.repo() as repo:
        for out in outs:
            place = workspace.root / out["path"]
            if not _sound(repo.cache.local, place, out["md5"]):
                wrong.append(out["path"])
                _remove(place)
    if wrong:
        _remove_dangling(workspace)
    return wrong


def _remove_dangling(workspace: Workspace) -> None:
    """With `cache.type` symlink, other results may have led to a file that was just removed; DVC fails at such links.

    Without them it sees that the result isn't whole, and it is restored or made anew.
    """
    outs = [out["path"] for entry in workspace.lock_entries().values() for out in entry.get("outs", [])]
    for place in (workspace.root / path for path in outs):
        for path in [place, *place.rglob("*")]:
            if path.is_symlink() and not path.exists():
                path.unlink()


def _sound(cache: Any, place: Path, value: str) -> bool:
    """Whether every file in place has its hash; the wrong objects behind those that don't are removed."""
    sound = True
    for path, expected in _files(cache, place, value):
        if _md5(path) != expected.removesuffix(".dir"):
            sound = False
            kept = Path(cache.oid_to_path(expected))
            if _md5(kept) != expected.removesuffix(".dir"):
                _discard(kept)
    return sound


def _files(cache: Any, place: Path, value: str) -> Iterator[tuple[Path, str]]:
    """Each file of the output with the hash it should have; of a folder first the listing, which lies in the cache."""
    if not value.endswith(".dir"):
        yield place, value
        return
    listing = Path(cache.oid_to_path(value))
    yield listing, value
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # a wrong listing has been told already
        for entry in json.loads(listing.read_text(encoding="utf-8")):
            yield place / entry["relpath"], entry["md5"]


def _md5(path: Path) -> str | None:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return None
    except OSError as error:  # unreadable isn't wrong: it may be another user's
        raise UserError(
            f"{path} could not be read: {error.strerror}.",
            "See to it that DVC's cache and the results are readable, then run again.",
            kind="disk",
        ) from error
    return digest.hexdigest()


def _discard(path: Path) -> None:
    """Remove a damaged file of the cache."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} is damaged and could not be removed: {error.strerror}.",
            "Make DVC's cache writable, or remove the file, then run again.",
            kind="disk",
        ) from error


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
