"""What the commands have in common: the console, the workspace, and how a duration is read."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from rich.console import Console

from components.errors import UserError
from flows import settings

if TYPE_CHECKING:
    from flows.repo.workspace import Workspace

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def console(*, stderr: bool = False) -> Console:
    """A console that leaves `x:100:` as it is."""
    return Console(stderr=stderr, emoji=False)


def workspace() -> Workspace:
    """The project that the current folder is in, made the current folder; every library's environment is set."""
    from flows.repo.workspace import Workspace

    found = Workspace.find()
    os.chdir(found.root)
    settings.apply(found.root)
    return found


def seconds(text: str) -> float:
    """``90``, ``90s``, ``30m`` or ``2.5h`` as seconds.

    Raises:
        UserError: it is none of these, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if value <= 0:
        raise UserError(f"Expected a duration such as 90s, 30m or 2.5h, got '{text}'.", "", "parameters")
    return value
