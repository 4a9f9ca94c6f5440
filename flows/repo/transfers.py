"""Moves the files of outputs between DVC's cache and a remote; what arrives is compared with its hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flows.repo.remote_errors import failed, readable


def push(repo: Any, name: str, outs: Iterable[Any]) -> int:
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


def pull(repo: Any, name: str, outs: Iterable[Any]) -> int:
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
