"""What a worktree has in common with its checkout: DVC's cache and settings, state folders, data and results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from components.errors import UserError
from flows.repo import graph, integrity
from flows.repo.workspace import OWNER, Workspace

SHARED = ("accepted", "benchmarks", "checkpoints", "logits", "mlflow", "prefect", "timings")
"""Folders of .stillhouse/ that a worktree's links lead to."""


def share(home: Workspace, worktree: Workspace) -> None:
    """Make the worktree use the checkout's cache, DVC remotes and state."""
    worktree.state.mkdir(exist_ok=True)
    (worktree.state / OWNER).write_text(f"{home.root}\n", encoding="utf-8")
    for name in SHARED:
        _link(worktree.state / name, home.state / name)
    _configure(home, worktree)


def _link(link: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == folder:
        return
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(folder)


def _configure(home: Workspace, worktree: Workspace) -> None:
    """Write .dvc/config.local: the checkout's own, with its cache, and remotes by paths that mean the same here."""
    with home.repo() as repo:
        from dvc.config import Config, merge

        tracked, private = worktree.root / ".dvc" / "config", worktree.root / ".dvc" / "config.local"
        theirs = Config.load_file(str(tracked)) if tracked.exists() else {}
        found: dict[str, Any] = {"remote": _paths(Config._load_paths(theirs, repo.config.files["repo"]))}
        merge(found, _plain(repo.config.read("local")))
        # Links cost neither time nor space. They are read-only, and what a stage writes it writes anew.
        kinds = repo.config["cache"].get("type") or "reflink,hardlink,copy"
        merge(found, {"cache": {"dir": repo.cache.local_cache_dir, "type": kinds}})
        # DVC's record of the files here goes when the worktree does.
        merge(found, {"core": {"site_cache_dir": str(worktree.root / ".dvc" / "tmp" / "site")}})
        private.touch(mode=0o600)  # it may hold credentials
        with Config(str(worktree.root / ".dvc")).edit("local") as config:
            config.clear()
            config.update({"machine": {}, "db": {}} | found)


def _paths(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Of each remote, the settings that are paths relative to the config file, made absolute."""
    from dvc.config_schema import RelPath

    remotes: dict[str, Any] = config.get("remote", {})
    return {
        name: {key: str(value) for key, value in settings.items() if isinstance(value, RelPath)}
        for name, settings in remotes.items()
    }


def _plain(value: Any) -> Any:
    """The same without the types by which DVC would write a path as relative again."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, str) else value


def put_in_place(source: Workspace, worktree: Workspace) -> None:
    """The data and, of the other files that DVC knows, all that its cache has; other inputs are links.

    Args:
        source: whose files the worktree was made from.
        worktree: where to put them.

    Raises:
        UserError: the data that data.dvc pins can't be had, or a stage reads a file that the worktree can't have.
    """
    _store_data(source, worktree)
    integrity.discard_wrong_listings(worktree)
    with worktree.repo() as repo:
        outs = list(repo.index.outs)
        with repo.lock:
            for out in outs:
                if out.hash_info and out.use_cache and not out.changed_cache():
                    out.checkout(force=True)
        stages, _ = graph.build(repo, worktree.root)
    for stage in worktree.lock_entries().keys() & stages.keys():
        integrity.discard_damaged(worktree, stage)  # what goes on from wrong bytes would be wrong
    with worktree.repo() as repo:
        _link_inputs(source, worktree, stages, {Path(out.fs_path) for out in outs})


def _store_data(source: Workspace, worktree: Workspace) -> None:
    """See to it that DVC's cache holds what the worktree's data.dvc pins: from the data folder, else the remote."""
    pinned = worktree.data_hash()
    if pinned is None:
        worktree.check_data()
    with worktree.repo() as repo:
        if not repo.stage.load_one(str(worktree.data_file)).outs[0].changed_cache():
            return
    if source.data.is_dir() and source.data_hash() == pinned and not source.data_changes():
        source.commit_data()
    elif not worktree.pull_data():
        raise UserError(
            f"The data that data.dvc pins ({pinned}) is neither in data/, nor in DVC's cache, nor on a DVC remote.",
            "Get it: `stillhouse data pull`, or configure the DVC remote that has it.",
            kind="data",
        )


def _link_inputs(source: Workspace, worktree: Workspace, stages: dict[str, graph.Stage], outs: set[Path]) -> None:
    """Stages may read files that neither git nor DVC keeps: they are read where they are."""
    for stage in stages.values():
        for dep in stage.deps:
            here, there = worktree.root / dep, source.root / dep
            if here.exists() or any(here == out or here.is_relative_to(out) for out in outs):
                continue
            if dep.is_absolute():
                raise UserError(
                    f"The stage {stage.name} reads a file by a path that leads out of the project; in the worktree "
                    f"it would be {dep}, which isn't there.",
                    "Name it by its absolute path in dvc.yaml or params.yaml, or put it into the project.",
                    kind="parameters",
                )
            if there.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                here.unlink(missing_ok=True)
                here.symlink_to(there.resolve())
