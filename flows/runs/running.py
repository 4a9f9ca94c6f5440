"""The one way to run a pipeline: alone in its workspace, mended first, with a Prefect API, stopped cleanly."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from components.errors import UserError, disk_full
from flows.repo.workspace import Workspace
from flows.runs import ending, flow_runs, repair, retries, run_lock
from flows.runs.options import RunOptions
from flows.runs.run_lock import RunLock
from flows.runs.stopping import STOPPER, Stopped
from flows.server import prefect_api

log = logging.getLogger(__name__)


def run(workspace: Workspace, options: RunOptions) -> list[str]:
    """Run the pipeline and the side effects; a warning for each of these that failed and will be tried again.

    Raises:
        UserError: the user's mistake, or ``busy``, ``cancelled`` (from Prefect), ``time limit``.
        KeyboardInterrupt: Ctrl-C, SIGTERM, or the death of the process that started us.
    """
    retries.delays()  # refuses a wrong setting before anything starts
    with (
        exclusive(workspace, options.if_busy) as lock,
        STOPPER.time_limit(options.time_limit),
        prefect_api(workspace.root),
    ):
        flow_runs.close_killed(lock.left)
        lock.settle()
        return _run_flow(workspace, options)


@contextlib.contextmanager
def exclusive(workspace: Workspace, if_busy: str = "refuse") -> Iterator[RunLock]:
    """Be alone at work in the workspace, which is mended first; whatever stops us does so in good order.

    A call inside another one is part of it, so a command may look at the workspace before it calls :func:`run`.

    Raises:
        UserError, KeyboardInterrupt: as :func:`run`.
    """
    if held := run_lock.held(workspace):
        yield held
        return
    try:
        with (
            STOPPER.listening(),
            run_lock.only_run(workspace, if_busy, _say) as lock,
            STOPPER.saying(lock.clear),
        ):
            for line in repair.mend(workspace):
                _say(line)
            yield lock
    except Stopped as stopped:
        raise stopped.error() from None


def _say(text: str) -> None:
    Console().print(f"  [yellow]![/] {escape(text)}", highlight=False)


def _run_flow(workspace: Workspace, options: RunOptions) -> list[str]:
    """Run the flow; its end becomes the list of warnings, or what is raised."""
    # They would make Prefect take this process for the one that its worker or runner has started.
    for name in [name for name in os.environ if name.startswith("PREFECT__")]:
        del os.environ[name]
    from flows.pipeline import pipeline

    try:
        with STOPPER.saying(_last_words):
            warnings = pipeline(str(workspace.root), options)
        assert isinstance(warnings, list)  # Prefect raises what isn't a completed state
        return warnings
    except Stopped as stopped:  # before the flow's own code, or after it
        flow_runs.tell(stopped)
        _notify(workspace, stopped)
        raise
    except BaseException as error:
        if STOPPER.stopped is None:
            _notify(workspace, error)
            raise
        _notify(workspace, STOPPER.stopped)
        raise STOPPER.stopped from None  # the flow returned its state, and Prefect raised that


def _last_words() -> None:
    """For Prefect, when the run can't be ended in good order."""
    if STOPPER.reason:
        flow_runs.tell(STOPPER.stopped or Stopped(STOPPER.reason))


def _notify(workspace: Workspace, error: BaseException) -> None:
    """Tell of a failure, a crash or a time limit; who has stopped a run knows it."""
    stopped = error.reason.kind if isinstance(error, Stopped) else None
    if stopped not in (None, "time limit") or isinstance(error, (KeyboardInterrupt, SystemExit)):
        return
    from flows import notifications

    readable = error if isinstance(error, UserError) else disk_full(error)
    kind = readable.kind if isinstance(readable, UserError) else stopped or type(error).__name__
    notifications.notify(workspace.root, "failure", f"Stillhouse: a run failed ({kind})", str(readable or error))
    ending.note(kind, told=True)
