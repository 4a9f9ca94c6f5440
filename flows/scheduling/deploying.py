"""Registers the deployments of prefect.yaml on a Prefect server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from components.errors import UserError
from components.loader import load_yaml
from flows import server
from flows.runs.processes import Process
from flows.scheduling.workers import POOL, PROJECT
from flows.settings import TELEMETRY_OFF

FILE = Path("prefect.yaml")
FLOW = "scheduled"
NO_SERVER = (
    "Start one that stays: `stillhouse ui` in another terminal, or any Prefect server: "
    "`prefect server start`, then `export PREFECT_API_URL=http://127.0.0.1:4200/api`."
)


@dataclass(frozen=True)
class Timing:
    """One schedule of a deployment: its rule, the time zone the rule is read in, and when it fires next."""

    rule: str
    zone: str
    next: datetime | None


@dataclass(frozen=True)
class Deployed:
    """A deployment as the server has it; no timings: it runs when somebody asks for it."""

    name: str
    timings: list[Timing]
    flow: str = FLOW


def lasting_api(root: Path) -> str:
    """Point us at the Prefect server that the user's settings name, or that a running `stillhouse ui` is; its address.

    Schedules need a server that goes on, so none is started here.

    Raises:
        UserError: there is none, or it doesn't answer.
    """
    if not (os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE")):
        address = server.running_ui(root)
        if address:
            os.environ["PREFECT_API_URL"] = f"{address}/api"
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        raise UserError("Expected a Prefect server for the schedules; none is named or running.", NO_SERVER, "server")
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem:
        raise UserError(f"The Prefect server at {url} doesn't answer: {problem}", NO_SERVER, "server")
    return str(url)


def declared(root: Path) -> dict[str, str]:
    """The deployments in prefect.yaml: the flow of each, by its name.

    Raises:
        UserError: there is no such file, or no deployment in it.
    """
    path = root / FILE
    found = load_yaml(path) if path.exists() else None
    deployments = found.get("deployments") if isinstance(found, dict) else None
    named = [each for each in deployments or [] if isinstance(each, dict) and each.get("name")]
    if not named:
        raise UserError(f"Expected {FILE} with named deployments, found none.", "See docs/schedules.md.", "parameters")
    return {str(each["name"]): str(each.get("entrypoint", FLOW)).rpartition(":")[2] for each in named}


def register(root: Path, names: Sequence[str]) -> list[Deployed]:
    """Register the deployments of prefect.yaml with these names, all if none are given, and the work pool.

    Doing it again changes nothing. Call it after `lasting_api`.

    Raises:
        UserError: there is no such deployment, or Prefect refuses one, in its words.
    """
    known = declared(root)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{FILE} has no deployment {', '.join(unknown)}.", f"It has {', '.join(known)}.", "parameters")
    _make_pool()
    wanted = list(names) or list(known)
    # Prefect would write this machine's folder into the deployment, where every worker is to fill in its own.
    command = ["env", "-u", PROJECT, sys.executable, "-m", "prefect", "--no-prompt", "deploy"]
    command += [word for name in wanted for word in ("--name", name)]
    code, lines = Process(command, root, TELEMETRY_OFF | {"COLUMNS": "120"}).follow(lambda _: None)
    found = _registered({name: known[name] for name in wanted})
    if code or len(found) < len(wanted):
        said = "\n".join(line for line in lines[-25:] if line.strip())
        raise UserError(f"Prefect did not register {', '.join(wanted)}:\n{said}", f"Mend {FILE}.", "parameters")
    return found


def _make_pool() -> None:
    """The work pool, unless there is one; how that one is set up is the user's."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            pool = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_work_pool(pool)


def _registered(named: Mapping[str, str]) -> list[Deployed]:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    found = []
    with get_client(sync_client=True) as client:
        for name, flow in named.items():
            with contextlib.suppress(ObjectNotFound):
                deployment = client.read_deployment_by_name(f"{flow}/{name}")
                timings = [timing(each.schedule) for each in deployment.schedules if each.active]
                found.append(Deployed(name, [] if deployment.paused else timings, flow))
    return found


def timing(schedule: Any, now: datetime | None = None) -> Timing:
    """What a Prefect schedule says, and when it fires next after ``now``."""
    from prefect.server.schemas.schedules import SCHEDULE_TYPES  # these can tell their dates
    from pydantic import TypeAdapter

    rules = {name: getattr(schedule, name, None) for name in ("cron", "interval", "rrule")}
    name, rule = next((name, value) for name, value in rules.items() if value is not None)
    shown = rule if name == "cron" else f"{name} {rule}"
    computed: Any = TypeAdapter(SCHEDULE_TYPES).validate_python(schedule.model_dump())
    dates = asyncio.run(computed.get_dates(n=1, start=now or datetime.now(UTC)))
    zone = str(schedule.timezone or "UTC")
    return Timing(str(shown), zone, dates[0].astimezone(ZoneInfo(zone)) if dates else None)
