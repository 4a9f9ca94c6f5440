"""Files that DVC keeps: the listing behind a hash and where each file lies, fetched from the remote if need be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.errors import UserError
from flows.repo import kept
from flows.repo.remote_errors import readable
from flows.repo.workspace import Workspace

_BLOCK = 2**20


def listing(workspace: Workspace, value: str) -> dict[str, str]:
    """Path -> hash of the files in the folder with the hash ``value``; the hash of a file has one path, ``""``.

    Raises:
        UserError: neither DVC's cache nor the remote has the list, or it is damaged.
    """
    if not value.endswith(".dir"):
        return {"": value}
    with workspace.repo() as repo:
        _fetch(repo, [value])
        return _read(repo, value)


def locate(workspace: Workspace, values: Iterable[str]) -> dict[str, Path]:
    """Hash -> the file in DVC's cache that holds its content; what the cache lacks is fetched from the remote.

    Raises:
        UserError: neither the cache nor the remote has a file.
    """
    wanted = list(dict.fromkeys(values))
    with workspace.repo() as repo:
        _fetch(repo, wanted)
        return {value: Path(repo.cache.local.oid_to_path(value)) for value in wanted}


def hashed(workspace: Workspace, folder: Path) -> dict[str, str]:
    """The listing of a folder as it stands, as ``dvc add`` would make it; nothing is stored."""
    with workspace.repo() as repo:
        return kept.listing(kept.tree(repo, str(folder)))


def part_of(files: Mapping[str, str], path: str) -> dict[str, str]:
    """The listing of the file or folder ``path`` in a folder with the listing ``files``."""
    if path in files:
        return {"": files[path]}
    return {name.removeprefix(f"{path}/"): value for name, value in files.items() if name.startswith(f"{path}/")}


def hash_of(files: Mapping[str, str]) -> str | None:
    """The hash that DVC gives to a listing; None to an empty one, which may be of nothing at all."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    if not files or "" in files:
        return files.get("")
    tree = Tree()
    for name, value in files.items():
        tree.add(tuple(name.split("/")), None, HashInfo("md5", value))
    tree.digest()
    return str(tree.hash_info.value)


def check(path: Path, value: str, copy: Path | None = None) -> None:
    """See to it that a file of the cache holds what its hash says, and copy it to ``copy`` on the way.

    Raises:
        UserError: it doesn't; names the file and how to get a sound one.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, (copy or Path(os.devnull)).open("wb") as target:
        while block := file.read(_BLOCK):
            digest.update(block)
            target.write(block)
    if digest.hexdigest() != value.removesuffix(".dir"):
        raise UserError(
            f"{path} in DVC's cache is damaged: its content has the hash {digest.hexdigest()}.",
            "Remove that file; then `dvc pull` fetches it from the remote, or `stillhouse run` computes it again.",
            kind="pipeline",
        )


def _read(repo: Any, value: str) -> dict[str, str]:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    try:
        tree = Tree.load(repo.cache.local, HashInfo("md5", value))
    except ObjectFormatError:
        path = Path(repo.cache.local.oid_to_path(value))
        check(path, value)
        raise UserError(f"{value} is not the hash of a folder.", "Give one that a data.dvc pins.", "data") from None
    return kept.listing(tree)


def _fetch(repo: Any, values: list[str]) -> None:
    """Get from the remote what the cache lacks of ``values``: these objects alone, not what a folder lists."""
    cache = repo.cache.local
    remote = repo.config["core"].get("remote")
    missing = [value for value in values if not cache.exists(value)]
    if missing and remote:
        with readable(repo, remote):
            _transfer(repo, cache, missing)
        missing = [value for value in missing if not cache.exists(value)]
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        where = f"DVC's cache and the remote '{remote}' lack it" if remote else "DVC's cache lacks it, with no remote"
        raise UserError(
            f"The file with the hash {missing[0]}{more} can't be had: {where}.",
            "Configure the remote that holds it (`dvc remote add --default NAME URL`), or name another version.",
            kind="data",
        )


def _transfer(repo: Any, cache: Any, values: list[str]) -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.transfer import transfer

    store = repo.cloud.get_remote_odb(None, "fetch")
    there = {HashInfo("md5", value) for value in values if store.exists(value)}
    if there:
        transfer(store, cache, there, cache_odb=cache, verify=True)
