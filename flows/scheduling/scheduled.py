"""The flow that schedules start: brings a worktree of one git revision up to date with that revision's own code.

A worker imports this file from the project's folder and runs the flow in a process of its own. What counts as
the pipeline, its commands included, is the revision's: they run as a subprocess in the worktree, whose whole
process group ends with us, and we end with the worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed

from components.errors import UserError
from flows import notifications, settings
from flows.commands.common import seconds
from flows.repo import git
from flows.repo.remotes import remote
from flows.repo.workspace import Workspace
from flows.repo.worktrees import open_worktree
from flows.runs import ending, retries
from flows.scheduling import commands
from flows.scheduling.commands import Ended
from flows.scheduling.scheduled_before import (
    FOLDER,
    blob,
    kept_lock,
    last_finished,
    note_finished,
    note_refused,
    refused,
)
from flows.scheduling.workers import Worker

NOTHING_CHANGED = "NothingChanged"
ALREADY_REFUSED = "AlreadyRefused"
POLL_SECONDS = 0.5
ENDING_SECONDS = 10.0  # to end the run and tell Prefect, after the worker has died


@flow(name="scheduled", persist_result=False)
def scheduled(
    revision: str = "HEAD",
    overrides: dict[str, Any] | None = None,
    if_busy: Literal["wait", "cancel"] = "wait",
    time_limit: str | None = None,
    only_if_data_changed: bool = False,
    pull: bool = True,
    push: bool = True,
    parallel: int = 1,
) -> State[Any]:
    """Bring the pipeline at a git revision up to date, in a worktree of its own.

    Args:
        revision: a branch (its state on the git remote if there is one), tag or commit.
        overrides: parameters for this run alone, by dotted key: {"distill.temperature": 4}.
        if_busy: while another scheduled run is at work in this project: wait for it, or cancel this one.
        time_limit: end the run after that long: 90s, 30m, 8h.
        only_if_data_changed: do nothing unless data.dvc differs from this deployment's last finished run, nor
            again what was refused.
        pull: take from the DVC remote, if one is set, what others have computed.
        push: give the DVC remote, if one is set, each stage's results as it ends.
        parallel: how many independent stages may run at once.
    """
    owner, log = Workspace.find(), get_run_logger()
    settings.apply(owner.root)
    name = re.sub(r"[^A-Za-z0-9-]+", "-", str(runtime.deployment.name or "by-hand"))
    shared = [*([] if pull else ["--no-pull"]), *_assignments(overrides or {})]
    options = ["--wait", "--parallel", str(parallel), *(["--time-limit", time_limit] if time_limit else [])]
    commit = None
    try:
        _check_options(time_limit, parallel)
        with _ending_with_the_worker(), only_scheduled_run(owner, if_busy, log.info):
            commit = find_commit(owner, revision, log.info)
            if only_if_data_changed and last_finished(owner, name).get("data") == blob(owner, commit, "data.dvc"):
                return nothing_changed()
            if only_if_data_changed and refused(owner, name, commit):
                return already_refused(commit)
            worktree = _worktree(owner, name, commit)
            log.info(f"revision {revision} ({commit[:10]}) in {worktree.root}")
            shared += ["--push"] if push and remote(worktree) else []
            changes = commands.plan(worktree.root, shared, log.info, _ending(owner, name))
            if changes:
                commands.run(worktree.root, [*shared, *options], log.info, _ending(owner, name))
            note_finished(owner, name, commit, worktree)
            return Completed(message=f"{commit[:10]}: {changes}") if changes else nothing_changed()
    except UserError as error:
        return _failed(owner, name, Failed(message=str(error)))
    except Ended as ended:
        if commit and ended.state.is_failed() and ended.kind in ending.USERS:
            note_refused(owner, name, commit)
        return ended.state if ended.told else _failed(owner, name, ended.state)


def nothing_changed() -> State[Any]:
    """The state of a run that had nothing to do."""
    return Completed(name=NOTHING_CHANGED, message="nothing changed")


def already_refused(commit: str) -> State[Any]:
    """The state of a run that would only fail as the one before."""
    message = f"{commit[:10]} and its data were refused by the run before; another commit or other data will be tried"
    return Completed(name=ALREADY_REFUSED, message=message)


def _check_options(time_limit: str | None, parallel: int) -> None:
    """Refuse what `stillhouse run` would only refuse after the plan.

    Raises:
        UserError: one of them is wrong (``parameters``).
    """
    if time_limit:
        seconds(time_limit)
    if parallel < 1:
        raise UserError(f"Expected for parallel 1 or more, got {parallel}.", "", "parameters")


def _ending(owner: Workspace, name: str) -> Path:
    """Where a command leaves how it failed."""
    return owner.state / FOLDER / f"{name}.ending.json"


def _failed(owner: Workspace, name: str, state: State[Any]) -> State[Any]:
    if state.is_failed():
        notifications.notify(owner.root, "failure", f"The scheduled run {name} failed", str(state.message))
    return state


def _assignments(overrides: dict[str, Any]) -> list[str]:
    """As options; JSON is YAML too."""
    return [word for key, value in overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def find_commit(owner: Workspace, revision: str, say: Callable[[str], None]) -> str:
    """The commit that ``revision`` names: a branch's state on the git remote, fetched first, if there is one.

    Raises:
        UserError: the remote can't be reached, or there is no such revision.
    """
    remotes = git.attempt(owner.root, "remote").stdout.split()
    tracked = git.attempt(owner.root, "config", f"branch.{revision}.remote").stdout.strip()
    remote = tracked if tracked in remotes else "origin" if "origin" in remotes else next(iter(remotes), None)
    if remote:
        retries.again(lambda: _fetch(owner.root, remote), say)
    candidates = [f"refs/remotes/{remote}/{revision}", revision] if remote else [revision]
    found = next(filter(None, (git.commit_of(owner.root, candidate) for candidate in candidates)), None)
    if found is None:
        message = f"There is no git revision '{revision}' in {owner.root}."
        raise UserError(message, "Name a branch, a tag or a commit.", "parameters")
    return found


def _fetch(root: Path, remote: str) -> None:
    done = git.attempt(root, "fetch", "--quiet", remote)
    if done.returncode:
        message = f"The git remote '{remote}' could not be fetched: {done.stderr.strip()[-500:]}"
        raise UserError(message, "Check the network and `git remote --verbose`.", "network")


def _worktree(owner: Workspace, name: str, commit: str) -> Workspace:
    """The deployment's worktree at that commit, with what its last run recorded in dvc.lock.

    The commit's own dvc.lock counts when it is another one than at that time: somebody has committed results.
    """
    replacing = {}
    if last_finished(owner, name).get("lock") == blob(owner, commit, "dvc.lock"):
        with contextlib.suppress(OSError):
            replacing["dvc.lock"] = kept_lock(owner, name).read_text(encoding="utf-8")
    return open_worktree(owner, f"scheduled-{name}", commit, replacing=replacing, if_busy="wait")


@contextlib.contextmanager
def only_scheduled_run(owner: Workspace, if_busy: str, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only scheduled run of this project on this machine, whichever deployment it is of.

    Raises:
        Ended: another one is at work and ``if_busy`` is ``cancel``.
    """
    path = owner.state / FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lock:
        waits = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if if_busy == "cancel":
                    state: State[Any] = Cancelled(message="another scheduled run is at work in this project")
                    raise Ended(state, told=True) from None
            if not waits:
                say("waits: another scheduled run is at work in this project")
            waits = True
            time.sleep(POLL_SECONDS)
        yield


@contextlib.contextmanager
def _ending_with_the_worker() -> Iterator[None]:
    """End this flow run when the worker that started it has ended: nobody else could end it then.

    Raises:
        Ended: it has.
    """
    worker, done = Worker(), threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            if worker.gone:
                os.kill(os.getpid(), signal.SIGTERM)  # Prefect raises it in the flow
                if not done.wait(ENDING_SECONDS):
                    os._exit(1)  # what we started notices
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except BaseException:
        if not worker.gone:
            raise
        with contextlib.suppress(ValueError):  # in the main thread; the worker's own signal may come late
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        message = "the worker that started it has ended; the next run goes on from the last checkpoint"
        raise Ended(Crashed(message=message)) from None
    finally:
        done.set()
        watcher.join(POLL_SECONDS)
