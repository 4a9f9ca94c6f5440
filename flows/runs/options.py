"""What a run may be asked for, apart from what to compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.repo.choice import EVERYTHING, Choice


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    Args:
        parallel: how many independent stages may run at once.
        choice: the stages to run; the side effects follow only when every stage is up to date afterwards.
        pull: take from the DVC remote what others have computed.
        push: give each stage's outputs and run-cache entry to the DVC remote as the stage ends.
        time_limit: seconds after which the run is ended; None: no limit.
        registers: whether the fine-tuned model becomes a version of the registered model with the alias
            ``candidate``, and meets the gate; False for experiments, which are published but not registered.
        overrides: the parameters that were set for this run alone, by dotted key, for display and tags.
        if_busy: what to do while another run is at work in this workspace: ``refuse`` or ``wait``.
    """

    parallel: int = 1
    choice: Choice = EVERYTHING
    pull: bool = False
    push: bool = False
    time_limit: float | None = None
    registers: bool = True
    overrides: Mapping[str, str] = field(default_factory=dict)
    if_busy: str = "refuse"
