"""Versions of the data: what a git revision, a DVC hash or the checkout itself holds, put in place to be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml.error import YAMLError

from components.errors import UserError
from flows.repo import git, lockfile, objects
from flows.repo.workspace import Workspace

CHECKOUT = "."
_HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class DataVersion:
    """A version of data/: its files (path inside data/ -> hash), and the params.yaml that goes with it, if any.

    ``commit`` is the git commit it was found in; ``in_place`` says that it is the data folder of the checkout.
    """

    name: str
    hash: str
    files: dict[str, str]
    params: str | None = None
    commit: str | None = None
    in_place: bool = False


def find(workspace: Workspace, name: str = CHECKOUT) -> DataVersion:
    """The version that ``name`` means: a git revision, the hash of a data version, or ``.`` for the checkout.

    Raises:
        UserError: there is no such revision, it has no data.dvc, or its list of files can't be had.
    """
    if name == CHECKOUT:
        return _checkout(workspace)
    if _HASH.fullmatch(name):
        value = name if name.endswith(".dir") else f"{name}.dir"
        return DataVersion(name, value, objects.listing(workspace, value))
    return _revision(workspace, name)


def place(workspace: Workspace, version: DataVersion, folder: Path, wanted: list[str]) -> None:
    """Link the files of ``version`` at or in the paths ``wanted`` under their names in ``folder``; the rest stays out.

    Raises:
        UserError: neither DVC's cache nor the remote has a file.
    """
    files = {name: value for name, value in version.files.items() if any(_within(name, path) for path in wanted)}
    places = {} if version.in_place else objects.locate(workspace, files.values())
    for name, value in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(workspace.data / name if version.in_place else places[value])


def _within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")


def _checkout(workspace: Workspace) -> DataVersion:
    params = workspace.root / "params.yaml"
    text = params.read_text(encoding="utf-8") if params.exists() else None
    if workspace.data.is_dir():
        files = objects.hashed(workspace, workspace.data)
        return DataVersion(CHECKOUT, objects.hash_of(files) or "", files, text, in_place=True)
    value = workspace.data_hash()
    if value is None:
        raise UserError(
            "The checkout has neither data/ nor data.dvc.", "Add your data: `stillhouse data add FILE...`.", "data"
        )
    return DataVersion(CHECKOUT, value, objects.listing(workspace, value), text)


def _revision(workspace: Workspace, name: str) -> DataVersion:
    commit = git.commit_of(workspace.root, name)
    if commit is None:
        raise UserError(
            f"There is no git revision '{name}', and it isn't the hash of a data version.",
            "Name a commit, branch or tag, the hash that a data.dvc pins, or . for the checkout as it is.",
            kind="data",
        )
    pinned = _file(workspace, commit, "data.dvc")
    if pinned is None:
        raise UserError(
            f"{name} has no data.dvc: no data is versioned there.", "Name a revision that has it.", kind="data"
        )
    value = _hash(pinned, name)
    params = _file(workspace, commit, "params.yaml")
    return DataVersion(name, value, objects.listing(workspace, value), params, commit)


def _file(workspace: Workspace, commit: str, name: str) -> str | None:
    """The text of a file in a commit; None when it isn't there."""
    done = git.attempt(workspace.root, "show", f"{commit}:./{name}")
    return None if done.returncode else done.stdout


def _hash(text: str, name: str) -> str:
    """The hash that the text of a data.dvc pins."""
    try:
        return str(lockfile.parse(text)["outs"][0]["md5"])
    except (YAMLError, LookupError, TypeError):
        raise UserError(f"data.dvc of {name} pins nothing.", "Name a revision with a sound one.", "data") from None
