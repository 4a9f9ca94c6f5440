"""What DVC's cache, its run-cache and its remote hold of a stage; looks, and leaves everything as it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml.error import YAMLError

from flows.data.changes import DataChanges, compare
from flows.repo.lockfile import parse
from flows.repo.remote_errors import without_secrets

ANSWER_SECONDS = 4.0
Answer = TypeVar("Answer")


class Kept:
    """Where the outputs of stages can be had without running them.

    What its methods return are the reasons to add to a plan; None when a stage's outputs are nowhere.
    """

    def __init__(self, repo: Any, *, pull: bool = False) -> None:
        # DVC would remove what it finds damaged in its cache, and protect the rest.
        repo.cache.local.fs.remove = repo.cache.local.protect = lambda *_, **__: None
        name = repo.config["core"].get("remote") if pull else None
        self.remote = Remote(repo, name) if name else None

    def recorded(self, tracked: Any) -> list[str] | None:
        """Where the outputs are that dvc.lock names."""
        return [] if tracked.outs_cached() else self._remote_outs(tracked)

    def for_inputs(self, tracked: Any, coming: Set[str]) -> list[str] | None:
        """Where the outputs for the inputs that the stage has now are; changes ``tracked``, on no disk.

        The same steps as in DVC's ``StageCache.restore(dry=True)``, which works in the current folder only and not
        before every input is in place. ``coming`` are the inputs that are restored, as dvc.lock has them, before.
        """
        from dvc.stage.loader import StageLoader

        key = _run_key(tracked, coming)
        if key is None:
            return None
        entry = _local_entry(tracked, key)
        if entry is None and self.remote:
            entry = self.remote.entry(key)
        if entry is None:
            return None
        StageLoader.fill_from_lock(tracked, entry)
        return self.recorded(tracked)

    def complaints(self) -> list[str]:
        """That the remote can't be asked and why; told once."""
        complaint = self.remote.complaint() if self.remote else None
        return [complaint] if complaint else []

    def _remote_outs(self, tracked: Any) -> list[str] | None:
        if self.remote and all(out.use_cache and self.remote.holds(out) for out in tracked.outs):
            return [f"from the remote {self.remote.name}"]
        return None


class Remote:
    """The DVC remote, given a few seconds in all to answer; what went wrong is kept for ``complaint``."""

    def __init__(self, repo: Any, name: str) -> None:
        self.name = name
        self._repo = repo
        self._left = ANSWER_SECONDS
        self._problem: str | None = None
        self._told = False

    def holds(self, out: Any) -> bool:
        """Whether it has the output that dvc.lock names: the file, or the folder's listing, which comes last there.

        The listing is kept in ``out``, so that the hashes of what is inside are known.
        """
        if not out.hash_info:
            return False
        store = self._store(out.hash_name)
        if store is None:
            return False
        if not out.hash_info.isdir:
            return bool(self._ask(lambda: store.exists(out.hash_info.value)))
        out.obj = self._ask(lambda: _listing_at(store, out.hash_info))
        return out.obj is not None

    def entry(self, key: str) -> dict[str, Any] | None:
        """What its run-cache holds for the key of a stage and its inputs."""
        store = self._store("md5-dos2unix")
        if store is None:
            return None
        folder = store.fs.join(store.path, "runs", key[:2], key)

        def ask() -> dict[str, Any] | None:
            names = sorted(store.fs.ls(folder, detail=False)) if store.fs.exists(folder) else []
            if not names:
                return None
            with store.fs.open(names[0], encoding="utf-8", mode="r") as file:
                found: dict[str, Any] = parse(file.read())
                return found

        return self._ask(ask)

    def complaint(self) -> str | None:
        """What went wrong, once."""
        if self._problem is None or self._told:
            return None
        self._told = True
        reason = " ".join(without_secrets(self._repo, self.name, self._problem).split())
        return f"the remote {self.name} can't be asked: {reason[:200]}"

    def _store(self, hash_name: str) -> Any:
        if self._problem is not None:
            return None
        try:
            return self._repo.cloud.get_remote_odb(self.name, hash_name=hash_name)
        except Exception as error:  # each kind of remote has its own, a library that isn't installed among them
            self._problem = str(error)
            return None

    def _ask(self, question: Callable[[], Answer]) -> Answer | None:
        """The answer; None when there is none, in time or at all. A thread that hangs ends with the process."""
        found: list[Answer] = []

        def ask() -> None:
            try:
                found.append(question())
            except FileNotFoundError:
                pass
            except Exception as error:
                self._problem = str(error) or type(error).__name__

        started = time.monotonic()
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(max(self._left, 0.1))
        self._left -= time.monotonic() - started
        if asking.is_alive():
            self._problem = f"no answer within {ANSWER_SECONDS:g} s"
        return found[0] if found else None


def changed_files(dep: Any) -> DataChanges | None:
    """How a folder differs from what dvc.lock recorded of it; None when it isn't one, or DVC's cache lacks its list."""
    if not (dep.hash_info and dep.hash_info.isdir and dep.isdir()):
        return None
    before = dep.get_obj()
    now = tree(dep.repo, dep.fs_path)
    return compare(listing(before), listing(now)) if before is not None else None


def tree(repo: Any, folder: str) -> Any:
    """DVC's hashed listing of a folder, computed as ``dvc add`` does; nothing is stored."""
    from dvc_data.hashfile.build import build

    # A folder that .dvcignore leaves out as such, like a half-written one, is looked at whole.
    hidden = repo.dvcignore.is_ignored(repo.fs, folder)
    ignore = None if hidden else repo.dvcignore
    return build(repo.cache.local, folder, repo.fs, "md5", dry_run=True, ignore=ignore)[2]


def listing(found: Any) -> dict[str, str]:
    """Path -> hash of DVC's listing of a folder."""
    return {"/".join(key): entry.value for key, _, entry in found}


def _listing_at(store: Any, hash_info: Any) -> Any:
    from dvc_data.hashfile.tree import Tree

    return Tree.load(store, hash_info)


def _run_key(tracked: Any, coming: Set[str]) -> str | None:
    """The run-cache's name for the stage with the inputs it has now; None when DVC keeps no runs of it."""
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    kept = [tracked.cmd, tracked.deps, tracked.outs]
    if not all(kept) or tracked.is_callback or tracked.always_changed:
        return None
    if any(not out.is_in_repo or out.persist or out.protocol != "local" for out in tracked.outs):
        return None
    for dep in tracked.deps:
        if dep.fs_path in coming:
            continue
        if not dep.exists:
            return None
        dep.save()
    key: str = _get_cache_hash(to_single_stage_lockfile(tracked), key=True)
    return key


def _local_entry(tracked: Any, key: str) -> dict[str, Any] | None:
    """The newest entry of the run-cache; one that is damaged is DVC's to remove."""
    folder = Path(tracked.repo.stage_cache._get_cache_dir(key))
    try:
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        found: dict[str, Any] = parse(newest.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError, YAMLError):  # ValueError: there is none, or it isn't text
        return None
