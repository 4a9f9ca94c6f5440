"""Checkpoints of a sequence of phases: finished ones whole, the one that runs at its last two saved steps.

What a phase keeps lies in a folder of its own: ``checkpoint-STEP/`` while it runs, ``finished/`` when it is done.
Each of these is sealed last (``components.ml.training.seal``); one that is torn or damaged is removed, and training
goes on from an earlier one, or from the start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.ml.training.seal import is_whole, loaded, seal

if TYPE_CHECKING:  # the trainer imports this module
    from components.ml.training.trainer import Learner

WEIGHTS = "model.safetensors"
BEST = "best.safetensors"
_FINISHED = "finished"
_SAID = "said.json"
_FULL = 1_000_000


class PhaseCheckpoints:
    """The checkpoints of one phase, in a folder of their own.

    Everything there is disposable: a run without it takes longer and ends in the same weights.

    Args:
        folder: of this phase.
        history: the history file, whose lines up to a checkpoint belong to it.
        best: the best weights so far, elsewhere: who deletes ``folder`` meanwhile must not change the result.
        steps: how many steps the sequence has before this phase, after it, and in all.
    """

    def __init__(self, folder: Path, history: Path, best: Path, steps: tuple[int, int, int]) -> None:
        self.folder = folder
        self.history = history
        self.best = best
        self.before, self.after, self.total = steps

    def finished(self, learner: Learner) -> dict[str, Any] | None:
        """Put the finished phase's weights into ``learner`` and return what it said of itself; None if it isn't."""
        place = self.folder / _FINISHED
        if not place.exists() or not self._usable(place, learner):
            return None
        said: dict[str, Any] = json.loads((place / _SAID).read_text(encoding="utf-8"))
        learner.load_state(place / WEIGHTS)
        shutil.copyfile(place / self.history.name, self.history)
        self._tell(self.after)
        return said

    def resumable(self, learner: Learner) -> str | None:
        """The last whole checkpoint of a phase that didn't finish, its history and best weights put back; else None."""
        for checkpoint in sorted(self.folder.glob("checkpoint-*"), key=_step, reverse=True):
            if self._usable(checkpoint, learner):
                shutil.copyfile(checkpoint / self.history.name, self.history)
                if (checkpoint / BEST).exists():
                    self.best.parent.mkdir(parents=True, exist_ok=True)
                    _link(checkpoint / BEST, self.best)
                self._tell(self.before + _step(checkpoint))
                return str(checkpoint)
        return None

    def keep(self, checkpoint: Path) -> None:
        """Add to what the Trainer wrote there the history and the best weights so far, and seal it."""
        shutil.copyfile(self.history, checkpoint / self.history.name)
        if self.best.exists():
            _link(self.best, checkpoint / BEST)
        seal(checkpoint, step=self.before + _step(checkpoint), total=self.total)

    def finish(self, learner: Learner, said: dict[str, Any]) -> None:
        """Keep the finished phase's weights; its checkpoints on the way are no longer needed."""
        draft, place = self.folder / f"{_FINISHED}.new", self.folder / _FINISHED
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            learner.save_state(draft / WEIGHTS)
            shutil.copyfile(self.history, draft / self.history.name)
            (draft / _SAID).write_text(json.dumps(said), encoding="utf-8")
            seal(draft, step=self.after, total=self.total)
            shutil.rmtree(place, ignore_errors=True)
            draft.rename(place)
        except (OSError, SafetensorError) as error:
            give_up(draft, error)
            return
        for other in self.folder.iterdir():
            if other != place:
                _remove(other)

    def _usable(self, place: Path, learner: Learner) -> bool:
        """Whether ``place`` is whole and holds the parameters that train here; else it is removed."""
        whole = is_whole(place)
        if whole and _fits(place / WEIGHTS, learner):
            loaded.append(place)
            return True
        why = "was written by code with other parameters" if whole else "is half-written or damaged"
        print(f"the checkpoint {place} {why}; it is removed", flush=True)
        _remove(place)
        return False

    def _tell(self, step: int) -> None:
        print(f"resumed at step {step} of {self.total}", flush=True)


def give_up(place: Path, error: Exception) -> None:
    """A checkpoint that can't be written, mostly since the disk is full, is no reason to end the training."""
    reason = str(error).strip().split("\n")[0]
    with contextlib.suppress(OSError):  # somebody has removed the folder
        if shutil.disk_usage(place.parent).free < _FULL:  # PyTorch says only that the position is unexpected
            reason = "the disk is full"
    _remove(place)
    print(f"the checkpoint {place} could not be written, training goes on without it: {reason}", flush=True)


def _step(checkpoint: Path) -> int:
    """0 for a folder that isn't one of ours."""
    number = checkpoint.name.rsplit("-", 1)[1]
    return int(number) if number.isdecimal() else 0


def _fits(path: Path, learner: Learner) -> bool:
    """An accepted checkpoint comes from other code, which may have trained something else."""
    expected = {name: list(value.shape) for name, value in learner.training_state().items()}
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()} == expected  # noqa: SIM118


def _link(source: Path, target: Path) -> None:
    """One file under two names, where the file system can; it is replaced as a whole, never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
