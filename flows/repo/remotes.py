"""Sharing results through the DVC remote: a stage's outputs and its run-cache entry, and the data.

``dvc push --run-cache`` and ``dvc repro --pull`` copy the whole run-cache, every time. What is here moves the files
of one stage, and compares what arrives with its hash, which DVC does only where it is told to.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from components.errors import UserError
from flows.repo import graph, run_cache, transfers
from flows.repo.remote_errors import readable, without_secrets
from flows.repo.workspace import Workspace

LOCK_SECONDS = 60.0


def remote(workspace: Workspace) -> str | None:
    """The name of the default DVC remote; None when none is set."""
    with workspace.repo() as repo:
        return _default(repo)


def identity(workspace: Workspace) -> str:
    """What tells the default remote from others, its address without credentials; empty when none is set."""
    with workspace.repo() as repo:
        name = _default(repo)
        settings = repo.config["remote"].get(name) or {} if name else {}
        return without_secrets(repo, name, f"{name} {settings.get('url', '')}") if name else ""


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
            if run_cache.store_in(repo):
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
            entry = run_cache.own(repo, tracked)
        with readable(repo, name):
            # The entry last: who finds it must find the outputs too.
            return transfers.push(repo, name, tracked.outs) + (run_cache.push(repo, *entry) if entry else 0)


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
            return transfers.push(repo, name, outs)


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
            came = 0 if locked else run_cache.pull(repo, tracked)
            known = locked or run_cache.fill(repo, tracked)
            return came + (transfers.pull(repo, name, tracked.outs) if known else 0)


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
    """Hold DVC's lock while the graph and dvc.lock are read, which a stage that ends may be writing just now.

    Raises:
        UserError: another DVC command holds it for longer than a minute (``busy``).
    """
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
                    raise UserError(
                        f"Expected DVC's lock within {LOCK_SECONDS:.0f} seconds; another DVC command holds it.",
                        "Wait for it to end, then run again.",
                        "busy",
                    ) from None
        yield


def _see_to_results(outs: Iterable[Any], what: str) -> None:
    for out in outs:
        if not out.hash_info or out.changed_cache():
            raise UserError(
                f"{what} can't be shared: {out} is not, or not whole, in DVC's cache.",
                "Make it first: `stillhouse run`.",
                "pipeline",
            )


def _as_locked(tracked: Any) -> bool:
    """Whether dvc.lock names the result for the inputs that the stage has now."""
    return bool(all(out.hash_info for out in tracked.outs) and not tracked.changed_stage() and tracked.deps_cached())
