"""A clean clone of the checkout: what git tracks, with the edits that aren't committed, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from flows.repo import git, objects
from flows.repo.workspace import Workspace


def make(workspace: Workspace, folder: Path) -> tuple[Path, list[str]]:
    """Clone the commit that is checked out into the new ``folder`` and carry over edits of tracked files.

    The edits come along because the recorded results belong to them: dvc.lock itself is one after each run. What
    git doesn't track stays behind, so that a stage which needs it fails.

    Returns:
        the project's root in the clone, and the names of the edited files, dvc.lock apart.

    Raises:
        UserError: the project isn't in git, or has no commit yet.
    """
    top, prefix = git.top(workspace.root)
    commit = git.commit_of(workspace.root) or ""
    git.git(top, "clone", "--quiet", "--no-checkout", "--no-tags", str(top), str(folder))
    if git.commit_of(folder, commit) is None:  # on no branch
        git.git(folder, "fetch", "--quiet", str(top), commit)
    git.git(folder, "checkout", "--quiet", "--detach", commit)
    listed = git.git(top, "diff", "HEAD", "--name-only", "--no-renames", "--no-relative", "-z").split("\0")
    edited = [name for name in listed if name]
    for name in edited:
        _carry(top / name, folder / name)
    return folder / prefix, [name for name in edited if name != f"{prefix}dvc.lock"]


def _carry(source: Path, target: Path) -> None:
    if source.is_symlink() or source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    elif not source.exists():
        target.unlink(missing_ok=True)


def put(workspace: Workspace, path: Path, files: Mapping[str, str]) -> None:
    """Copy recorded files from DVC's cache to ``path``; ``files`` is relative path -> hash, each checked.

    Raises:
        UserError: a file can't be had, or is damaged.
    """
    places = objects.locate(workspace, files.values())
    for name, value in files.items():
        target = path / name if name else path
        target.parent.mkdir(parents=True, exist_ok=True)
        objects.check(places[value], value, copy=target)
