"""Makes the report and the card of a run from what it left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from components.params.project import Params
from flows.repo.workspace import Workspace
from flows.reporting import card, files, page
from flows.reporting.evidence import Origin, gather
from flows.reporting.reproduce import commands, source


def write(
    workspace: Workspace, params: Params, name: str, origin: Origin, outcomes: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """Write reports/report.html and reports/model_card.md; their paths by the names they have in MLflow.

    Args:
        workspace: holds the results.
        params: what they were made with.
        name: the run's, for people.
        origin: where the run is recorded.
        outcomes: by stage, how this run came by its result.

    Raises:
        UserError: nothing is evaluated yet, or a file is damaged.
    """
    evidence = gather(workspace, params, name, origin, outcomes)
    again = commands(evidence, source(workspace))
    return files.write(workspace.root, page.render(evidence, again), card.render(evidence, again))
