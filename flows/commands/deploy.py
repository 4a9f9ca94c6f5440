"""`stillhouse deploy` and `worker`: training on a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands import common

if TYPE_CHECKING:
    from flows.scheduling.deploying import Deployed


def deploy(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Deployments of prefect.yaml; none: all of them.")
    ] = None,
) -> None:
    """Register the deployments and schedules of prefect.yaml on the Prefect server."""
    from flows.scheduling import deploying

    workspace, console = common.workspace(), common.console()
    console.print(f"Registering on {deploying.lasting_api(workspace.root)} ...", highlight=False)
    deployments = deploying.register(workspace.root, names or [])
    for line in _told(deployments):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print("\nThey run where a worker does: `stillhouse worker`.", highlight=False)


def _told(deployments: list[Deployed]) -> list[str]:
    lines = []
    for deployment in deployments:
        if not deployment.timings:
            call = f"prefect deployment run {deployment.flow}/{deployment.name}"
            lines.append(f"  {deployment.name:<20} when asked for: {call}")
        for timing in deployment.timings:
            fires = f"next {timing.next:%Y-%m-%d %H:%M} {timing.zone}" if timing.next else "never fires"
            lines.append(f"  {deployment.name:<20} {timing.rule} ({timing.zone}), {fires}")
    return lines


def worker() -> None:
    """Run the scheduled runs on this machine until interrupted; Ctrl-C ends it and them."""
    from flows.scheduling import deploying, workers

    workspace, console = common.workspace(), common.console()
    address = deploying.lasting_api(workspace.root)
    console.print(f"Takes runs from {address}, works in {workspace.root}. Ctrl-C ends it.", highlight=False)
    code = workers.work(workspace.root, lambda line: console.print(line, markup=False, highlight=False))
    if code:
        raise typer.Exit(code)
