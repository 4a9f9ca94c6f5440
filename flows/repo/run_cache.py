"""Entries of DVC's run-cache, here and on a remote: which outputs a stage had for which inputs, one file each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_ENTRY = re.compile(r"[0-9a-f]{64}")


def store_in(repo: Any) -> Any | None:
    """The remote's store that holds ``runs/``; None where it can't hold any."""
    from dvc.fs import HTTPFileSystem

    store = repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")
    return None if isinstance(store.fs, HTTPFileSystem) else store


def own(repo: Any, tracked: Any) -> tuple[str, str] | None:
    """Key and name of the run-cache entry for the result in dvc.lock, made if it is missing; None if it can't be.

    The same as DVC's ``StageCache.save``, which works in the current folder only.
    """
    from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash
    from dvc.stage.serialize import to_single_stage_lockfile
    from dvc.utils.serialize import dump_yaml
    from dvc_objects.fs.utils import tmp_fname

    if not _can_hash(tracked):
        return None
    key, found = _get_stage_hash(tracked), to_single_stage_lockfile(tracked)
    entry = _get_cache_hash(found)
    path = Path(repo.stage_cache._get_cache_path(key, entry))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.parents[2] / tmp_fname(entry)  # not among the entries: DVC would read it
        dump_yaml(draft, found)
        draft.replace(path)
    return key, entry


def push(repo: Any, key: str, entry: str) -> int:
    from dvc.fs import generic

    store = store_in(repo)
    if store is None:
        return 0
    target = store.fs.join(store.path, "runs", key[:2], key, entry)
    if store.fs.exists(target):
        return 0
    local = repo.cache.legacy.fs
    store.fs.makedirs(store.fs.parent(target))
    generic.copy(local, repo.stage_cache._get_cache_path(key, entry), store.fs, target)
    return 1


def pull(repo: Any, tracked: Any) -> int:
    """Get the remote's run-cache entries for the inputs of a stage."""
    from dvc.stage.cache import _can_hash, _get_stage_hash

    store = store_in(repo)
    if store is None or not _can_hash(tracked):
        return 0
    key = _get_stage_hash(tracked)
    return _receive(repo, store, key)


def _receive(repo: Any, store: Any, key: str) -> int:
    """Copy the run-cache entries that this machine lacks; what another machine is still writing is left out."""
    from dvc.fs import generic
    from dvc_objects.fs.utils import tmp_fname

    folder, local, count = store.fs.join(store.path, "runs", key[:2], key), repo.cache.legacy.fs, 0
    for found in store.fs.find(folder) if store.fs.exists(folder) else ():
        entry = store.fs.parts(found)[-1]
        target = repo.stage_cache._get_cache_path(key, entry)
        if _ENTRY.fullmatch(entry) and not local.exists(target):
            draft = local.join(repo.stage_cache.cache_dir, tmp_fname(entry))
            local.makedirs(local.parent(target))
            generic.copy(store.fs, found, local, draft)
            local.move(draft, target)
            count += 1
    return count


def fill(repo: Any, tracked: Any) -> bool:
    """Give the stage the hashes of the outputs that the run-cache knows for its inputs; False if it knows none."""
    from dvc.stage.cache import _can_hash
    from dvc.stage.loader import StageLoader

    entry = repo.stage_cache._load(tracked) if _can_hash(tracked) else None
    if entry is None:
        return False
    StageLoader.fill_from_lock(tracked, entry)
    return True
