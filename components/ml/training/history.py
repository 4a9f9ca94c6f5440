"""The training history: one JSON object a line, written while a stage trains, free of times and paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# The Trainer also logs speeds, which differ from run to run.
KEPT = ("loss", "learning_rate", "grad_norm")
MEASURED = "eval_"


class History(TrainerCallback):
    """Appends what the Trainer logs to ``path``.

    Args:
        path: the file.
        phase: the phase's name.
        rows: how many rows the phase trains on; times the epoch, that is how many were seen.
        first_step: how many steps there are before the phase.
        total_steps: how many steps all phases have.
    """

    def __init__(self, path: Path, phase: str, rows: int, first_step: int, total_steps: int) -> None:
        self.path = path
        self.phase = phase
        self.rows = rows
        self.first_step = first_step
        self.total_steps = total_steps

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        values = {name: value for name, value in (logs or {}).items() if name in KEPT or name.startswith(MEASURED)}
        if not values:
            return
        step = self.first_step + state.global_step
        place = {"phase": self.phase, "step": step, "total_steps": self.total_steps}
        line = place | {"epoch": state.epoch, "rows": self.rows} | values
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"{self.phase}: step {step} of {self.total_steps}, {shown}", flush=True)
