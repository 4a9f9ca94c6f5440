"""A checkout seen through DVC: the graph, what is stale, hashes, and the data folder. The only module that imports dvc.

DVC is imported when it is first needed (0.4 s). Its ``Repo`` is opened for each call and closed after it,
so that a workspace can be used from several threads.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError, disk_full
from flows.data.changes import DataChanges, compare
from flows.repo import graph, lockfile
from flows.repo.choice import EVERYTHING, Choice
from flows.repo.graph import Stage
from flows.repo.kept import Kept, listing, tree
from flows.repo.planning import History, PlannedStage, Planner
from flows.repo.remote_errors import readable
from flows.settings import STATE

__all__ = ["DataChanges", "PlannedStage", "Stage", "Workspace"]

_OPENING = threading.Lock()  # DVC sets the process's umask to 0 meanwhile; two at once could leave it there
OWNER = "owner"
"""In a worktree's state folder: the file with the path of the checkout that it belongs to."""


@dataclass(frozen=True)
class Workspace:
    """The folder that holds dvc.yaml, params.yaml and .dvc."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Workspace:
        """The workspace that ``start`` (default: the current folder) is in.

        Raises:
            UserError: no folder from there upwards holds dvc.yaml and .dvc.
        """
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / "dvc.yaml").is_file() and (folder / ".dvc").is_dir():
                return cls(folder)
        raise UserError(
            f"Expected dvc.yaml and .dvc in {start} or a folder above it, found none.",
            "Run the command inside a Stillhouse project.",
        )

    @property
    def state(self) -> Path:
        """The folder of what isn't in git: run history, checkpoints, errors, receipts, worktrees."""
        return self.root / STATE

    @property
    def owner(self) -> Workspace:
        """The checkout that this worktree belongs to; itself when it is none."""
        try:
            return Workspace(Path((self.state / OWNER).read_text(encoding="utf-8").strip()))
        except FileNotFoundError:
            return self

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.root / "data"

    @property
    def data_file(self) -> Path:
        """The file that pins the data folder."""
        return self.root / "data.dvc"

    def stages(self) -> dict[str, Stage]:
        """The graph by stage name, in topological order; stages that could swap stand as dvc.yaml has them."""
        with self.repo() as repo:
            return graph.build(repo, self.root)[0]

    def plan(self, choice: Choice = EVERYTHING, *, pull: bool = False) -> list[PlannedStage]:
        """What a run would do to each chosen stage, in topological order; runs and changes nothing.

        Args:
            choice: the stages; the others stay as they are, and the chosen ones build on what lies on disk.
            pull: whether the default DVC remote is asked for what DVC's cache lacks, for some seconds at most.

        Raises:
            UserError: there are no such stages, or they read what one that isn't chosen hasn't written.
        """
        with self.repo() as repo:
            stages, tracked = graph.build(repo, self.root)
            never_run = set(stages) - set(self.lock_entries())
            kept, chosen = Kept(repo, pull=pull), set(choice.names(stages))
            planner = Planner(self.root, tracked, never_run, chosen, kept, self._history())
            return planner.plan(list(stages.values()))

    def _history(self) -> History:
        from flows.repo import accepting, checkpoints, timings

        return History(
            resumable=lambda stage: checkpoints.resumable(self, stage),
            estimate=lambda stage, action, left: timings.estimate(self, stage, action, left),
            accepted=accepting.accepted(self),
        )

    def lock_entries(self) -> dict[str, Any]:
        """The stages of dvc.lock, parsed; empty before the first run."""
        return lockfile.entries(self.root / "dvc.lock")

    def lock_digest(self) -> str:
        """sha256 over the stages of dvc.lock, whatever their order; empty before the first run."""
        found = self.lock_entries()
        return lockfile.digest(found) if found else ""

    def inputs_digest(self) -> str:
        """sha256 over all that decides the results and is known before a run: each stage's command,
        parameter values, and the hashes of the code and data that it reads and no stage writes."""
        with self.repo() as repo:
            stages, tracked = graph.build(repo, self.root)
            outs = [out.fs_path for item in tracked.values() for out in item.outs]
            return lockfile.digest({name: graph.inputs(tracked[name], outs, self.root) for name in stages})

    def output_hash(self, path: str | Path) -> str | None:
        """The hash dvc.lock holds for an output or dependency, such as ``artifacts/teacher/model``; None if none."""
        return lockfile.output_hash(self.lock_entries(), Path(path).as_posix())

    def data_hash(self) -> str | None:
        """The hash that data.dvc pins; None when there is no data.dvc."""
        return lockfile.pinned_hash(self.data_file)

    def folder_hash(self, path: Path) -> str:
        """The hash DVC gives to a folder, such as ``0a1b....dir``; it depends on file names and contents only."""
        with self.repo() as repo:
            return str(tree(repo, str(self.root / path)).hash_info.value)

    def data_changes(self) -> DataChanges:
        """How the data folder, which must exist, differs from data.dvc; without data.dvc every file is new."""
        pinned = self.data_hash()
        with self.repo() as repo:
            now = tree(repo, str(self.data))
            if now.hash_info.value == pinned:
                return DataChanges()
            before = _data_out(repo, self.data_file).get_obj() if pinned else []
            return DataChanges(listed=False) if before is None else compare(listing(before), listing(now))

    def check_data(self) -> None:
        """See to it that data/ is there and is what data.dvc pins.

        Raises:
            UserError: it isn't; names the files that differ and the commands for either way out.
        """
        if self.data_hash() is None:
            raise UserError(
                "Expected data.dvc, which pins the data; it is missing.",
                "Version your data with `stillhouse data add FILE...`, or go back: `git checkout data.dvc`.",
                kind="data",
            )
        if not self.data.is_dir():
            raise UserError("Expected a data/ folder; it is missing.", "Get it: `stillhouse data pull`.", kind="data")
        if changes := self.data_changes():
            raise changes.error()

    def add_data(self, relink: bool = True) -> None:
        """Put data/ into DVC's cache and pin it in data.dvc; without ``relink`` its files stay as they are on disk."""
        with self.repo() as repo:
            repo.add(str(self.data), relink=relink)

    def commit_data(self) -> None:
        """See to it that DVC's cache holds the data folder, which must match data.dvc."""
        with self.repo() as repo:
            if _data_out(repo, self.data_file).changed_cache():
                repo.commit(str(self.data_file))

    def checkout_data(self) -> bool:
        """Put the pinned data folder in place from DVC's cache; False when the cache doesn't hold all of it."""
        with self.repo() as repo:
            if _data_out(repo, self.data_file).changed_cache():
                return False
            repo.checkout(targets=[str(self.data_file)])
            return True

    def pull_data(self) -> bool:
        """Put the pinned data folder in place from the DVC remote; False when there is none or it lacks the data.

        Raises:
            UserError: the remote can't be read.
        """
        with self.repo() as repo:
            remote = repo.config["core"].get("remote")
            if not remote:
                return False
            with readable(repo, remote):
                repo.fetch(targets=[str(self.data_file)])
        return self.checkout_data()

    def git_commit(self) -> str | None:
        """The commit checked out, with ``-dirty`` when tracked files but dvc.lock differ from it; None without git."""
        commit = self._git("rev-parse", "--verify", "HEAD")
        if commit is None or commit.returncode:
            return None
        differs = self._git("diff", "--quiet", "HEAD", "--", ".", ":(exclude)dvc.lock")
        return commit.stdout.strip() + ("-dirty" if differs and differs.returncode else "")

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str] | None:
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        try:
            return subprocess.run(
                ["git", *arguments], cwd=self.root, env=environment, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None

    @contextmanager
    def repo(self) -> Iterator[Any]:
        """DVC's Repo, open; its errors, and a full disk, become readable."""
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        for name in ("dvc", "dvc_data", "dvc_objects"):
            # Above every level that is used: DVC then shows no progress bars either.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            with _OPENING:
                opened = Repo(str(self.root))
            with opened as repo:
                yield repo
        except (DvcException, OSError) as error:
            readable = disk_full(error) or (_readable(error) if isinstance(error, DvcException) else None)
            if readable is None:
                raise
            raise readable from error


def _data_out(repo: Any, data_file: Path) -> Any:
    """DVC's object for the folder that data.dvc pins."""
    return repo.stage.load_one(str(data_file)).outs[0]


def _readable(error: Any) -> UserError:
    """DVC's error with the details that it keeps in its cause."""
    from dvc.lock import LockError

    if isinstance(error, LockError):
        return UserError(
            "DVC is busy: another command is at work in this folder.", "Wait until it ends, then try again.", "busy"
        )
    cause = getattr(error, "exc", None) or error.__cause__
    details = [str(item) for item in getattr(cause, "errors", None) or filter(None, [cause])]
    lines = [str(error), *(detail for detail in details if detail not in str(error))]
    return UserError("DVC: " + "\n  ".join(lines), "Mend the file it names, or go back to git's version.", "pipeline")
