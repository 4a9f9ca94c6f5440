"""The folder in which a stage that trains keeps its checkpoints: one for each fingerprint, held while it trains there.

``.stillhouse/checkpoints/STAGE/FINGERPRINT/`` may be deleted at any time: that changes how long a stage takes, never
its result. It holds ``fingerprint.json`` (the fingerprint's parts), ``lock``, and what training puts there. The lock
lasts as long as the process that took it, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from components import fingerprint
from components.component import Component
from components.fingerprint import Parts
from components.ml.training import seal
from components.params.project import Params

CHECKPOINTS = Path(".stillhouse/checkpoints")
ACCEPTED = Path(".stillhouse/accepted")
PARTS_FILE = "fingerprint.json"
_LOCK = "lock"
_REMOVED = ".removed"


@contextlib.contextmanager
def checkpoint_folder(component: Component, params: Params, found: Parts | None) -> Iterator[Path | None]:
    """The folder for the checkpoints of ``component`` with its present inputs, held; None where it keeps none.

    Where another process trains the same thing, this one waits for it, and then finds what that has finished.

    Args:
        found: the parts of the fingerprint; None if an input is missing.
    """
    if found is None or not component.resumes:
        yield None
        return
    folder = CHECKPOINTS / component.name / fingerprint.digest(found)
    if not params.checkpoints.every:
        _forget_acceptance(folder)
        yield None
        return
    lock = _take(folder, found)
    try:
        yield folder if lock else None
        _forget_unless_loaded(folder, found)
    finally:
        if lock:
            _leave(folder, lock)


def _take(folder: Path, found: Parts) -> IO[Any] | None:
    """Hold the folder and write down what it is for; None where that can't be done."""
    lock = None
    try:
        lock = hold(folder, lambda: print("waits: another run trains the same thing", flush=True))
        _announce(folder, found)
    except OSError as error:  # a full disk, or a folder that may not be written to
        print(f"no checkpoints are kept: {error}", flush=True)
        _forget_acceptance(folder)
        if lock:
            _leave(folder, lock)
        return None
    return lock


def _announce(folder: Path, found: Parts) -> None:
    """Write the fingerprint's parts down, and tell of edits that were accepted."""
    kept = read_parts(folder)
    if kept is None or kept["parts"] != found:
        _forget_acceptance(folder)
        write_parts(folder, found, [])
        return
    os.utime(folder / PARTS_FILE)  # in use
    if not kept["accepted"]:
        _forget_acceptance(folder)
    if files := kept["accepted"]:
        print(f"goes on from a checkpoint that was accepted across edits of {', '.join(files)}", flush=True)
        write_json(_acceptance(folder), {"files": files})


def _acceptance(folder: Path) -> Path:
    """The note that a training went on from an accepted checkpoint."""
    return ACCEPTED / folder.parent.name / f"{folder.name}.json"


def _forget_acceptance(folder: Path) -> None:
    """The note of an earlier run, where this one starts from nothing that was accepted."""
    with contextlib.suppress(OSError):
        _acceptance(folder).unlink()


def _forget_unless_loaded(folder: Path, found: Parts) -> None:
    """A result that used no checkpoint of the folder, as none fitted, owes nothing to an accepted one."""
    if _acceptance(folder).exists() and not any(path.is_relative_to(folder) for path in seal.loaded):
        _forget_acceptance(folder)
        if folder.is_dir():
            write_parts(folder, found, [])


def _leave(folder: Path, lock: IO[Any]) -> None:
    """Let go of the folder, and take it away if nothing was put there."""
    with lock, contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {_LOCK, PARTS_FILE}:
            remove_held(folder)


def read_parts(folder: Path) -> dict[str, Any] | None:
    """``parts``, and as ``accepted`` the code files whose edits were accepted; None if that isn't there or damaged."""
    try:
        found = json.loads((folder / PARTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"parts", "accepted"} <= found.keys() else None


def write_parts(folder: Path, parts: Parts, accepted: list[str]) -> None:
    """What ``read_parts`` reads."""
    write_json(folder / PARTS_FILE, {"parts": parts, "accepted": accepted})


def write_json(path: Path, value: Any) -> None:
    """Write a file that is never seen half-written; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(json.dumps(value, indent=1), encoding="utf-8")
    draft.replace(path)


def folders(stage_folder: Path) -> list[Path]:
    """The folders of a stage's fingerprints."""
    if not stage_folder.is_dir():
        return []
    return sorted(path for path in stage_folder.iterdir() if path.is_dir() and path.suffix != _REMOVED)


def hold(folder: Path, on_wait: Callable[[], object]) -> IO[Any]:
    """Make ``folder`` and hold it until the returned file is closed; ``on_wait`` is called first if others hold it."""
    while True:
        lock = _open(folder)
        if lock is None:
            continue
        if not _locked(lock):
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_at(lock, folder):
            return lock
        lock.close()  # it was removed or renamed meanwhile


def try_hold(folder: Path) -> IO[Any] | None:
    """Hold ``folder`` until the returned file is closed; None if others hold it, or it is gone."""
    if not folder.is_dir():
        return None
    lock = _open(folder)
    if lock is not None and _locked(lock) and _is_at(lock, folder):
        return lock
    if lock is not None:
        lock.close()
    return None


def remove_held(folder: Path) -> None:
    """Remove a folder that the caller holds; renamed first, so that nobody can take half of it for whole."""
    doomed = folder.with_name(folder.name + _REMOVED)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """Empty a folder that the caller holds and goes on holding."""
    for path in folder.glob("*/"):
        shutil.rmtree(path, ignore_errors=True)


def sweep(stage_folder: Path) -> None:
    """Finish removals that were interrupted."""
    for doomed in stage_folder.glob(f"*{_REMOVED}"):
        shutil.rmtree(doomed, ignore_errors=True)


def _open(folder: Path) -> IO[Any] | None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return (folder / _LOCK).open("a", encoding="utf-8")
    except FileNotFoundError:  # removed in between
        return None


def _locked(lock: IO[Any]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(lock: IO[Any], folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), (folder / _LOCK).stat())
    except FileNotFoundError:
        return False
