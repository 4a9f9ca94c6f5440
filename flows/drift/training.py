"""Starts the training deployment after drift: once for each model and version of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.errors import UserError
from flows.repo import lockfile
from flows.repo.workspace import Workspace
from flows.scheduling import deploying

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun


def start(workspace: Workspace, deployment: str, content: str) -> dict[str, Any]:
    """Ask for a run of the deployment, unless one was asked for with the same model and data before.

    The same data would give the same model again, so a drift that goes on is no reason for a second run; Prefect's
    idempotency key sees to that, from whichever machine it is asked. A run that failed, crashed or was cancelled gave
    none, and stands in nobody's way.

    Returns:
        ``deployment``, ``run`` (the flow run's name), ``new`` (False: it was there before), ``failed`` (how many came
        to nothing before), and ``problem``: why there is none, in words.
    """
    name = deployment if "/" in deployment else f"{deploying.FLOW}/{deployment}"
    found: dict[str, Any] = {"deployment": name, "run": None, "new": False, "failed": 0, "problem": None}
    try:
        deploying.lasting_api(workspace.root)
        return found | _asked_for(name, ["retrain", name, content, workspace.data_hash() or "none"])
    except UserError as error:
        problem = str(error)
    except Exception as error:  # Prefect's client lets through whatever httpx, pydantic and the network raise
        problem = f"Prefect could not be asked for a run of {name}: {_kind(error)}"
    return found | {"problem": " ".join(problem.split())}


def _kind(error: Exception) -> str:
    """What went wrong, without the address in an answer's own words, which may hold a secret."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"its server answered {response.status_code} {response.reason_phrase}".rstrip() + "."
    return f"{type(error).__name__}: {str(error)[:300]}".rstrip(": ") + "."


def _asked_for(name: str, identity: list[str]) -> dict[str, Any]:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise UserError(
                f"The Prefect server knows no deployment {name} (monitoring.deployment).",
                f"Register it: `stillhouse deploy {name.split('/')[-1]}`.",
                "parameters",
            ) from None
        failed, key = 0, lockfile.digest(identity)
        while (before := _run(client, key)) and _came_to_nothing(before):
            failed += 1
            key = lockfile.digest([*identity, str(failed)])
        run = before or client.create_flow_run_from_deployment(deployment.id, idempotency_key=key)
        return {"run": run.name, "new": not before, "failed": failed}


def _run(client: SyncPrefectClient, key: str) -> FlowRun | None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey

    wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
    return next(iter(client.read_flow_runs(flow_run_filter=wanted)), None)


def _came_to_nothing(run: FlowRun) -> bool:
    from prefect.client.schemas.objects import StateType

    return run.state_type in (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
