"""Checkpoints of a sequence of phases: finished ones whole, the one that runs at its last saved step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from components.ml.training.trainer import Learner


class PhaseCheckpoints:
    """The checkpoints of one phase, in a folder of their own.

    Everything there is disposable: a run without it takes longer and ends in the same weights.

    Args:
        folder: of this phase.
        history: the history file, whose lines up to a checkpoint belong to it.
    """

    def __init__(self, folder: Path, history: Path) -> None:
        self.folder = folder
        self.history = history

    def finished(self, learner: Learner) -> dict[str, Any] | None:
        """Put the finished phase's weights into ``learner`` and return what it said of itself; None if it isn't."""
        if not (self.folder / "finished.json").exists():
            return None
        said: dict[str, Any] = json.loads((self.folder / "finished.json").read_text(encoding="utf-8"))
        learner.load_state(self.folder / "finished.safetensors")
        shutil.copyfile(self.folder / self.history.name, self.history)
        return said

    def resumable(self) -> str | None:
        """The last whole checkpoint of a phase that didn't finish, its history put back; None if there is none."""
        whole = [state.parent for state in self.folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}") if _is_json(state)]
        if not whole:
            return None
        last = max(whole, key=lambda checkpoint: int(checkpoint.name.rsplit("-", 1)[1]))
        shutil.copyfile(last / self.history.name, self.history)
        return str(last)

    def finish(self, learner: Learner, said: dict[str, Any]) -> None:
        """Keep the finished phase's weights; its checkpoints on the way are no longer needed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        learner.save_state(self.folder / "finished.safetensors")
        shutil.copyfile(self.history, self.folder / self.history.name)
        draft = self.folder / "finished.new"
        draft.write_text(json.dumps(said), encoding="utf-8")
        draft.replace(self.folder / "finished.json")
        for checkpoint in self.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)


def _is_json(path: Path) -> bool:
    """Whether the file was written to its end; it is the last one of a checkpoint."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


class AfterValidation(TrainerCallback):
    """A checkpoint that is due at the end of an epoch waits for the epoch's validation: a resumed run won't repeat it.

    Args:
        steps_per_epoch: optimiser steps.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.due = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put it off."""
        self.due = control.should_save and state.global_step % self.steps_per_epoch == 0
        if self.due:
            control.should_save = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save it with the validation done."""
        if self.due:
            control.should_save, self.due = True, False
