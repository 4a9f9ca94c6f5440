"""Commands of the revision that a worktree holds: its own code plans and runs, as a subprocess of the flow run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

from flows.runs import ending
from flows.runs.processes import Process
from flows.runs.stopping import CANCELLED, STARTER

GRACE_SECONDS = 5.0  # for the run to end what it has started; with what that takes, less than the ten it may take
# The log of the flow run takes our subprocess's lines; Prefect's own would stand there twice.
_ENVIRONMENT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    STARTER: "1",
    "COLUMNS": "160",
}


class Ended(Exception):
    """No error: the run has come to an end; carries the state in which.

    ``told``: people were notified already; ``kind``: of the UserError that ended it.
    """

    def __init__(self, state: State[Any], told: bool = False, kind: str = "") -> None:
        super().__init__(state.message)
        self.state, self.told, self.kind = state, told, kind


def plan(root: Path, options: Sequence[str], say: Callable[[str], None], left: Path) -> str:
    """What a run would do, in words; empty when there is nothing to do.

    Args:
        root: the worktree.
        options: of `stillhouse plan`.
        say: takes a line for each stage.
        left: where the command leaves how it failed.

    Raises:
        Ended: it has failed.
    """
    lines = _stillhouse(root, ["plan", "--json", *options], lambda _: None, left)
    planned = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
    for stage in planned["stages"]:
        say(f"{stage['name']}: {stage['action']}{'; '.join(['', *stage['because']])}")
    actions: dict[str, list[str]] = {}
    for stage in planned["stages"]:
        actions.setdefault(stage["action"], []).append(stage["name"])
    actions.pop("skip", None)
    words = [f"{action} {', '.join(names)}" for action, names in actions.items()]
    return "; ".join([*words, *planned.get("then", [])])


def run(root: Path, options: Sequence[str], say: Callable[[str], None], left: Path) -> None:
    """Bring the worktree up to date; arguments and what is raised are those of :func:`plan`."""
    _stillhouse(root, ["run", *options], say, left)


def _stillhouse(root: Path, arguments: Sequence[str], on_line: Callable[[str], None], left: Path) -> list[str]:
    """Run a command of the revision that is checked out at ``root``, which leaves in ``left`` how it failed.

    Returns:
        Its last lines.

    Raises:
        Ended: it has failed.
    """
    left.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**_ENVIRONMENT, ending.VARIABLE: str(left)}
    code, lines = Process(command, root, environment, GRACE_SECONDS).follow(on_line)
    if code:
        kind, told = ending.read(left)
        raise Ended(_state(code, lines, arguments[0]), told, kind)
    return list(lines)


def _state(code: int, lines: Sequence[str], command: str) -> State[Any]:
    """How a command that didn't end well ends the flow run: with the message that a person would have seen."""
    if code == 130:
        return Cancelled(message="interrupted; what was finished is kept")
    first = next((index for index, line in enumerate(lines) if line.startswith("Error:")), None) if code == 2 else None
    if first is not None:
        ended = Cancelled if CANCELLED.text.lower() in lines[first].lower() else Failed
        return ended(message="\n".join(lines[first:]))
    tail = "\n".join(line for line in lines[-15:] if line.strip())
    return Failed(message=f"`stillhouse {command}` ended with code {code}. The end of its output:\n{tail}")
