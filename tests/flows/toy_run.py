"""A whole run of the toy repository as a command: `running.run` with the stages alone, no models and no MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from components.errors import UserError
from flows import pipeline
from flows.repo.workspace import Workspace
from flows.runs import running
from flows.runs.display import Display
from flows.runs.options import RunOptions
from flows.stages import run_stages


def bring_up_to_date(workspace: Workspace, options: RunOptions) -> list[str]:
    """The stages of the toy."""
    run_stages(workspace, workspace.plan(), Display(Console(quiet=True)), options)
    return []


def main(options: dict[str, Any]) -> int:
    """As the command line would end."""
    pipeline._bring_up_to_date = bring_up_to_date
    try:
        running.run(Workspace(Path.cwd()), RunOptions(**options))
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}")
        return 130
    except UserError as error:
        print(f"{error.kind}: {error.message}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(eval(sys.argv[1]) if len(sys.argv) > 1 else {}))
