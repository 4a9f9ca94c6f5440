"""Runs a torch-free project as `stillhouse run` does, but for what only real parameters and models allow.

Started as a script, so that it can be killed: ``toy_run.py ROOT [PARALLEL]``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]


def main(root: Path, parallel: int) -> int:
    """Run every stage that is out of date; exit codes as those of `stillhouse run`."""
    from components.errors import UserError
    from components.loader import load_params
    from flows import settings

    os.chdir(root)
    settings.apply(root)
    params = load_params(ROOT / "tests/params.yaml")
    from flows import effects, pipeline
    from flows.repo.workspace import Workspace
    from flows.runs import running
    from flows.runs.failures import StageFailed
    from flows.runs.options import RunOptions
    from flows.tracking.tracker import Tracker

    untracked = UserError("nothing is tracked here", "", "parameters")
    with (
        mock.patch.object(pipeline, "check", return_value=params),
        mock.patch.object(pipeline, "check_plan"),
        mock.patch.object(effects, "apply_effects", return_value=[]),
        mock.patch.object(Tracker, "begin", side_effect=untracked),
    ):
        try:
            running.run(Workspace(root), RunOptions(parallel=parallel))
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        except StageFailed as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as error:
            print(f"Interrupted: {error}", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
