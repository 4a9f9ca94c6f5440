"""Starts the training deployment after drift: once for each model and version of the data."""

from __future__ import annotations

from typing import Any

from components.errors import UserError
from flows.repo import lockfile
from flows.repo.workspace import Workspace
from flows.scheduling import deploying


def start(workspace: Workspace, deployment: str, content: str) -> dict[str, Any]:
    """Ask for a run of the deployment, unless one was asked for with the same model and data before.

    The same data would give the same model again, so a drift that goes on is no reason for a second run; Prefect's
    idempotency key sees to that, from whichever machine it is asked.

    Returns:
        ``deployment``, ``run`` (the flow run's name), ``new`` (False: it was there before), and ``problem``: why there
        is none, in words.
    """
    name = deployment if "/" in deployment else f"{deploying.FLOW}/{deployment}"
    found: dict[str, Any] = {"deployment": name, "run": None, "new": False, "problem": None}
    try:
        deploying.lasting_api(workspace.root)
        key = lockfile.digest(["retrain", name, content, workspace.data_hash() or "none"])
        return found | _asked_for(name, key)
    except UserError as error:
        return found | {"problem": str(error).replace("\n", " ")}


def _asked_for(name: str, key: str) -> dict[str, Any]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
    from prefect.exceptions import ObjectNotFound

    wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise UserError(
                f"The Prefect server knows no deployment {name} (monitoring.deployment).",
                f"Register it: `stillhouse deploy {name.split('/')[-1]}`.",
                "parameters",
            ) from None
        before = client.read_flow_runs(flow_run_filter=wanted)
        run = before[0] if before else client.create_flow_run_from_deployment(deployment.id, idempotency_key=key)
        return {"run": run.name, "new": not before}
