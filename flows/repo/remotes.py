"""Sharing results through the DVC remote: a stage's outputs and its run-cache entry, and the data.

``dvc push --run-cache`` and ``dvc repro --pull`` copy the whole run-cache, every time. What is here moves the files
of one stage, and compares what arrives with its hash, which DVC does only where it is told to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from components.errors import UserError
from flows.repo import graph
from flows.repo.remote_errors import failed, readable
from flows.repo.workspace import Workspace

LOCK_SECONDS = 60.0
_ENTRY = re.compile(r"[0-9a-f]{64}")


def remote(workspace: Workspace) -> str | None:
    """The name of the default DVC remote; None when none is set."""
    with workspace.repo() as repo:
        return _default(repo)


def limits(workspace: Workspace) -> str | None:
    """What the default remote can't do, to be told once in a run; None when it can do everything.

    Raises:
        UserError: its settings are wrong, or the package for its kind isn't installed (``remote``).
    """
    with workspace.repo() as repo:
        name = _default(repo)
        if name is None:
            return None
        with readable(repo, name):
            if _entries_store(repo):
                return None
    return (
        f"The DVC remote '{name}' is read over HTTP, which can't hold DVC's run-cache: others restore "
        "the results that their dvc.lock names, and compute what it doesn't."
    )


def push_stage(workspace: Workspace, stage: str) -> int:
    """Give the remote the outputs of ``stage`` and its run-cache entry; returns how many files were new there.

    Raises:
        UserError: the remote can't be written (``remote``), or the stage has no whole result (``pipeline``).
    """
    with workspace.repo() as repo:
        name = _required(repo)
        with _undisturbed(repo):
            tracked = graph.build(repo, workspace.root)[1][stage]
            _see_to_results(tracked.outs, f"The result of the stage {stage}")
            entry = _save_entry(repo, tracked)
        with readable(repo, name):
            # The entry last: who finds it must find the outputs too.
            return _push(repo, name, tracked.outs) + (_push_entry(repo, *entry) if entry else 0)


def push_data(workspace: Workspace) -> int:
    """Give the remote the data that data.dvc pins; returns how many files were new there.

    Raises:
        UserError: the remote can't be written (``remote``), or DVC's cache lacks data (``pipeline``).
    """
    with workspace.repo() as repo:
        name = _required(repo)
        with _undisturbed(repo):
            outs = repo.stage.load_one(str(workspace.data_file)).outs
            _see_to_results(outs, "The data that data.dvc pins")
        with readable(repo, name):
            return _push(repo, name, outs)


def pull_stage(workspace: Workspace, stage: str) -> int:
    """Get what the remote has for the inputs that ``stage`` has now, so that ``dvc repro -s STAGE`` restores it.

    The stages before it must be up to date. The remote's results for other inputs are left where they are.

    Returns:
        How many files came; 0 when there is nothing for these inputs, or all of it is here.

    Raises:
        UserError: the remote can't be read, or what it holds is damaged (``remote``).
    """
    with workspace.repo() as repo:
        name = _required(repo)
        with _undisturbed(repo):
            tracked = graph.build(repo, workspace.root)[1][stage]
            if not all(dep.exists for dep in tracked.deps):
                return 0
            locked = _as_locked(tracked)
            if not locked:
                tracked.save_deps()
        with readable(repo, name):
            entries = 0 if locked else _pull_entries(repo, tracked)
            return entries + (_pull(repo, name, tracked.outs) if locked or _fill_from_entry(repo, tracked) else 0)


def pull_run_cache(workspace: Workspace) -> int:
    """Get the run-cache entries that the remote has and this machine lacks; returns how many.

    Raises:
        UserError: the remote can't be read (``remote``).
    """
    with workspace.repo() as repo, readable(repo, _required(repo)):
        store = _entries_store(repo)
        return _receive_entries(repo, store, ()) if store else 0


def _default(repo: Any) -> str | None:
    name: str | None = repo.config["core"].get("remote")
    return name


def _required(repo: Any) -> str:
    name = _default(repo)
    if name is None:
        raise UserError(
            "There is no default DVC remote to share results through.",
            "Set one: `dvc remote add --default NAME FOLDER-OR-ADDRESS`.",
            "pipeline",
        )
    return name


@contextmanager
def _undisturbed(repo: Any) -> Iterator[None]:
    """Hold DVC's lock while the graph and dvc.lock are read, which a stage that ends may be writing just now."""
    from dvc.lock import LockError
    from dvc.repo import lock_repo

    deadline = time.monotonic() + LOCK_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_repo(repo))  # tries for three seconds
                break
            except LockError:
                if time.monotonic() > deadline:
                    raise
        yield


def _see_to_results(outs: Iterable[Any], what: str) -> None:
    for out in outs:
        if not out.hash_info or out.changed_cache():
            raise UserError(
                f"{what} can't be shared: {out} is not, or not whole, in DVC's cache.",
                "Make it first: `stillhouse run`.",
                "pipeline",
            )


def _push(repo: Any, name: str, outs: Iterable[Any]) -> int:
    """Send what the remote lacks; a folder's listing after its files, so that its presence vouches for them."""
    sent = 0
    for out in outs:
        if not out.can_push:
            continue
        store = repo.cloud.get_remote_odb(out.remote, "push", hash_name=out.hash_name)
        for hashes in [_files(out), *_listing(out)]:
            lacking = hashes - set(store.oids_exist(hashes))
            for problem in _copy(out.cache, store, lacking):
                with readable(repo, name):
                    raise problem
            sent += len(lacking)
    return sent


def _pull(repo: Any, name: str, outs: Iterable[Any]) -> int:
    """Bring what DVC's cache lacks of ``outs``, as far as the remote has it."""
    came = 0
    for out in outs:
        store = repo.cloud.get_remote_odb(out.remote, "fetch", hash_name=out.hash_name)
        for wanted in [*_listing(out), None]:  # the listing says which files there are
            hashes = wanted or _files(out)
            lacking = hashes - set(out.cache.oids_exist(hashes))
            problems = _copy(store, out.cache, lacking, verify=True)
            for problem in problems:
                if not isinstance(problem, FileNotFoundError):
                    with readable(repo, name):
                        raise problem
            if problems:  # removed there, as by `dvc gc --cloud`: the stage runs instead
                return came
            _see_to_hashes(repo, name, store, lacking - set(out.cache.oids_exist(lacking)))
            came += len(lacking)
    return came


def _listing(out: Any) -> list[set[str]]:
    """The hash of a folder's listing; nothing for a file."""
    return [{out.hash_info.value}] if out.hash_info.isdir else []


def _files(out: Any) -> set[str]:
    """The hashes of an output's files; the listing of a folder must be in the cache."""
    return {oid.value for _, _, oid in out.get_obj()} if out.hash_info.isdir else {out.hash_info.value}


def _copy(source: Any, target: Any, hashes: set[str], *, verify: bool = False) -> list[BaseException]:
    """Copy files from one store to the other; what went wrong. With ``verify`` the damaged ones are removed again."""
    problems: list[BaseException] = []
    if hashes:
        oids = sorted(hashes)
        target.add(
            [source.oid_to_path(oid) for oid in oids],
            source.fs,
            oids,
            check_exists=False,
            verify=verify,
            on_error=lambda _oid, error: problems.append(error),
        )
    return problems


def _see_to_hashes(repo: Any, name: str, store: Any, damaged: set[str]) -> None:
    if damaged:
        first = store.fs.unstrip_protocol(store.oid_to_path(min(damaged)))
        many = "1 file there is" if len(damaged) == 1 else f"{len(damaged)} files there are"
        raise failed(repo, name, f"{many} damaged: remove {first}, so that the stage is computed anew")


def _as_locked(tracked: Any) -> bool:
    """Whether dvc.lock names the result for the inputs that the stage has now."""
    return bool(all(out.hash_info for out in tracked.outs) and not tracked.changed_stage() and tracked.deps_cached())


def _entries_store(repo: Any) -> Any | None:
    """The remote's store that holds ``runs/``; None where it can't hold any."""
    from dvc.fs import HTTPFileSystem

    store = repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")
    return None if isinstance(store.fs, HTTPFileSystem) else store


def _save_entry(repo: Any, tracked: Any) -> tuple[str, str] | None:
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


def _push_entry(repo: Any, key: str, entry: str) -> int:
    from dvc.fs import generic

    store = _entries_store(repo)
    if store is None:
        return 0
    target = store.fs.join(store.path, "runs", key[:2], key, entry)
    if store.fs.exists(target):
        return 0
    local = repo.cache.legacy.fs
    store.fs.makedirs(store.fs.parent(target))
    generic.copy(local, repo.stage_cache._get_cache_path(key, entry), store.fs, target)
    return 1


def _pull_entries(repo: Any, tracked: Any) -> int:
    """Get the remote's run-cache entries for the inputs of a stage."""
    from dvc.stage.cache import _can_hash, _get_stage_hash

    store = _entries_store(repo)
    if store is None or not _can_hash(tracked):
        return 0
    key = _get_stage_hash(tracked)
    return _receive_entries(repo, store, (key[:2], key))


def _receive_entries(repo: Any, store: Any, below: tuple[str, ...]) -> int:
    """Copy the run-cache entries that this machine lacks; what another machine is still writing is left out."""
    from dvc.fs import generic
    from dvc_objects.fs.utils import tmp_fname

    folder, local, count = store.fs.join(store.path, "runs", *below), repo.cache.legacy.fs, 0
    for found in store.fs.find(folder) if store.fs.exists(folder) else ():
        key, entry = store.fs.parts(found)[-2:]
        target = repo.stage_cache._get_cache_path(key, entry)
        if _ENTRY.fullmatch(entry) and not local.exists(target):
            draft = local.join(repo.stage_cache.cache_dir, tmp_fname(entry))
            local.makedirs(local.parent(target))
            generic.copy(store.fs, found, local, draft)
            local.move(draft, target)
            count += 1
    return count


def _fill_from_entry(repo: Any, tracked: Any) -> bool:
    """Give the stage the hashes of the outputs that the run-cache knows for its inputs; False if it knows none."""
    from dvc.stage.cache import _can_hash
    from dvc.stage.loader import StageLoader

    entry = repo.stage_cache._load(tracked) if _can_hash(tracked) else None
    if entry is None:
        return False
    StageLoader.fill_from_lock(tracked, entry)
    return True
