"""Worktrees that share the checkout's DVC cache: what runs there leaves the checkout as it is."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.errors import UserError
from flows.repo import git, sharing
from flows.repo.workspace import OWNER, Workspace
from flows.runs import run_lock

FOLDER = "worktrees"
DISPOSABLE = "set-"
"""Worktrees whose names begin so are removed in time: they were made for parameters set on the command line."""
KEPT, KEPT_SECONDS = 8, 3600.0
_INDEX = "stillhouse-index"


class Busy(UserError):
    """A run is at work in a worktree; ``alive`` is False for what is left of one that was killed."""

    def __init__(self, worktree: Workspace, note: run_lock.Note | None) -> None:
        who = f"process {note.pid} since {note.start}" if note else "a run that was killed"
        message = f"In the worktree {worktree.root} another run is at work: {who}."
        super().__init__(message, "Wait until it ends, or cancel it.", "busy")
        self.alive = note is not None and note.alive


def open_worktree(
    owner: Workspace,
    name: str,
    revision: str | None = None,
    *,
    replacing: Mapping[str, str] | None = None,
    if_busy: str = "refuse",
) -> Workspace:
    """The worktree ``.stillhouse/worktrees/NAME``, made or brought up to date.

    The data and the stages' outputs that dvc.lock names are put in place from the cache. Of the worktrees whose
    names begin with ``set-``, the 8 used last and those used within the last hour are kept.

    Args:
        owner: the checkout whose cache, data, checkpoints, run history and MLflow store it shares. A worktree
            gives its own files, and its owner the rest.
        name: letters, digits and dashes.
        revision: the git revision to check out; None takes the checkout as it stands, uncommitted edits included.
        replacing: the content of files of the project that shall be other than there, by name.
        if_busy: ``refuse`` or ``wait`` while a run is at work in this worktree.

    Raises:
        UserError: there is no such revision; the checkout isn't in git, or has no commit; its data isn't what
            data.dvc pins, or can't be had (``data``); a run is at work in the worktree (``busy``).
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise UserError(f"A worktree's name is made of letters, digits and dashes, got '{name}'.")
    deadline = time.monotonic() + run_lock.ENDING_SECONDS
    while True:
        try:
            return _open(owner, name, revision, replacing or {})
        except Busy as busy:
            if if_busy != "wait" and (busy.alive or time.monotonic() > deadline):
                raise
        time.sleep(run_lock.POLL_SECONDS)


def remove(owner: Workspace, name: str) -> None:
    """Remove a worktree; the results in DVC's cache stay.

    Raises:
        UserError: a run is at work in it (``busy``).
    """
    home = owner.owner
    folder, prefix = home.state / FOLDER / name, git.top(home.root)[1]
    with _one_at_a_time(home), _idle(Workspace(folder / prefix)):
        _remove(home, folder)


def _open(owner: Workspace, name: str, revision: str | None, replacing: Mapping[str, str]) -> Workspace:
    home, prefix = owner.owner, git.top(owner.root)[1]
    commit = _commit(owner, revision)
    folder = home.state / FOLDER / name
    worktree = Workspace(folder / prefix)
    with _one_at_a_time(home), _idle(worktree):
        if revision is None:
            _check_data(owner)
        tracked, everything = (f"{commit}^{{tree}}",) * 2 if revision else _trees(owner)
        try:
            _bring_to(home, folder, commit, tracked, everything)
        except UserError:  # killed half-way, or meddled with
            _remove(home, folder)
            _bring_to(home, folder, commit, tracked, everything)
        for file, content in replacing.items():
            (worktree.root / file).write_text(content, encoding="utf-8")
        sharing.share(home, worktree)
        sharing.put_in_place(owner, worktree)
        _remove_old(home, prefix)
    return worktree


def _commit(owner: Workspace, revision: str | None) -> str:
    commit = git.commit_of(owner.root, revision or "HEAD")
    if commit is None:
        raise UserError(
            f"There is no git revision '{revision}' here.",
            "Name a branch, a tag or a commit; one that others made comes with `git fetch`.",
        )
    return commit


def _check_data(owner: Workspace) -> None:
    """The checkout as it stands has the data that is in it: refuse what a run there would refuse."""
    if owner.data.is_dir() and (changes := owner.data_changes()):
        raise changes.error()


def _trees(owner: Workspace) -> tuple[str, str]:
    """The checkout's files as trees: those that git tracks, and with them those it neither tracks nor ignores."""
    folder, prefix = git.top(owner.root)
    with git.scratch_index(folder) as index:
        tracked = git.tracked_tree(folder, index)
        more = [*git.untracked(folder, prefix, index), *git.always(prefix)]
        return tracked, git.tracked_tree(folder, index, more)


def _bring_to(home: Workspace, folder: Path, commit: str, tracked: str, everything: str) -> None:
    """Make the worktree if need be, and its files those of the tree ``everything``; git sees them as in the checkout.

    An index of our own knows the files that we put there, tracked or not, so that they go when the checkout's do.
    """
    place = _place(home, folder) or _add(home, folder, commit)
    (place / f"{_INDEX}.lock").unlink(missing_ok=True)  # of one that was killed: we are alone here
    (place / "index.lock").unlink(missing_ok=True)
    index = {"GIT_INDEX_FILE": str(place / _INDEX)}
    git.git(folder, "read-tree", "--reset", "-u", everything, env=index)
    prefix = git.top(folder)[1]
    kept = [argument for name in git.NEVER for argument in ("--exclude", f"/{prefix}{name}")]
    git.git(folder, "clean", "--quiet", "-d", "--force", "--force", *kept, env=index)
    git.git(folder, "update-ref", "--no-deref", "HEAD", commit)
    git.git(folder, "read-tree", tracked)
    git.attempt(folder, "update-index", "-q", "--refresh")


def _place(home: Workspace, folder: Path) -> Path | None:
    """Where git keeps the worktree's index; None when there is none, or it is another checkout's, as in a copy."""
    try:
        place = Path((folder / ".git").read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        points_back = Path((place / "gitdir").read_text(encoding="utf-8").strip())
    except OSError:
        return None
    common = Path(git.git(home.root, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    ours = place.resolve().parent == common.resolve() / "worktrees" and points_back.resolve() == folder / ".git"
    return place if ours else None


def _add(home: Workspace, folder: Path, commit: str) -> Path:
    _remove(home, folder)
    git.git(home.root, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(folder), commit)
    return Path(git.git(folder, "rev-parse", "--absolute-git-dir"))


def _remove(home: Workspace, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    git.attempt(home.root, "worktree", "remove", "--force", "--force", str(folder))


def _remove_old(home: Workspace, prefix: str) -> None:
    """Keep the disposable worktrees that were used last, and those that are in use."""
    used: dict[Path, float] = {}
    for folder in (home.state / FOLDER).glob(f"{DISPOSABLE}*"):
        with contextlib.suppress(OSError):
            used[folder] = (folder / prefix / home.state.name / OWNER).stat().st_mtime
    for folder in sorted(used, key=used.__getitem__, reverse=True)[KEPT:]:
        if time.time() - used[folder] > KEPT_SECONDS:
            with contextlib.suppress(UserError), _idle(Workspace(folder / prefix)):
                _remove(home, folder)


@contextlib.contextmanager
def _one_at_a_time(home: Workspace) -> Iterator[None]:
    """Worktrees are made, changed and removed one after the other: git's own locks don't wait."""
    folder = home.state / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _idle(worktree: Workspace) -> Iterator[None]:
    """Keep runs from starting in the worktree.

    Raises:
        UserError: one is at work there (``busy``).
    """
    with contextlib.ExitStack() as stack:
        if worktree.state.is_dir() and not run_lock.held(worktree):
            path = worktree.state / run_lock.NAME
            file = stack.enter_context(path.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(worktree, run_lock.read(path)) from None
        yield
