"""The flow run as Prefect knows it: cancelled there, told how it ended, and closed after a kill."""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from flows.repo.workspace import Workspace
from flows.runs import run_lock
from flows.runs.run_lock import Note
from flows.runs.stopping import CANCELLED, STOPPER, Reason, Stopped

log = logging.getLogger(__name__)
ASK_SECONDS = 2.0


@contextlib.contextmanager
def watched(workspace: Workspace) -> Iterator[None]:
    """Stop the run when its flow run is cancelled in Prefect; call it inside the flow.

    Without a worker nobody else would: the state alone ends no process.
    """
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    run_id = flow_run.id
    if run_id is None:
        yield
        return
    lock = run_lock.held(workspace)
    if lock:
        lock.add(str(run_id))
    STOPPER.flow_run = str(run_id)
    context = contextvars.copy_context()  # Prefect's settings are in it
    with get_client(sync_client=True) as client:

        def cancelled() -> Reason | None:
            with contextlib.suppress(Exception):  # a server that doesn't answer has cancelled nothing
                state = client.read_flow_run(UUID(str(run_id))).state
                if state and (state.is_cancelling() or state.is_cancelled()):
                    return CANCELLED
            return None

        with STOPPER.watching(lambda: context.run(cancelled), ASK_SECONDS):
            yield


def tell(stopped: Stopped) -> None:
    """Have Prefect say how the run ended, where it would only say that it crashed."""
    if STOPPER.flow_run is None:
        return
    with contextlib.suppress(Exception):
        _set_state(STOPPER.flow_run, stopped.state())


def close_killed(left: Note | None) -> None:
    """End in Prefect the flow run of a run that was killed: it would be shown as running for ever."""
    if left is None or not left.flow_run:
        return
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    message = f"process {left.pid}, started {left.start}, was killed; the next run went on from what was finished"
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(left.flow_run)).state
            if state is None or state.is_final():
                return
            for task_run in _running_tasks(client, left.flow_run):
                client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
        _set_state(left.flow_run, Crashed(message=message))
    except Exception as error:  # another server now, or the run was deleted there
        log.info("the killed run %s could not be ended in Prefect: %s", left.flow_run, error)


def _running_tasks(client: Any, flow_run: str) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run)]))
    return [
        task for task in client.read_task_runs(flow_run_filter=chosen) if not (task.state and task.state.is_final())
    ]


def _set_state(flow_run: str, state: Any) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run), state, force=True)
