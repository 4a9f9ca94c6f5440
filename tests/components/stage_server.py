"""Runs stages by the real entry, each in a process of its own that dies where it is told to; PyTorch is imported once.

A program: reads lines of JSON, ``{"stage", "folder", "log", "dies"}``, and answers each with the stage's exit code,
-9 for a kill.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from components import __main__ as launcher
from components import distill, recipes, teacher  # noqa: F401
from components.ml.training import checkpoints, trainer
from components.ml.training.trainer import Learner


def at_call(owner: Any, name: str, which: int | str, after: bool = False) -> Callable[[], None]:
    """Die at a call of a function, before or after it has done its work: the n-th, or the first with that word."""

    def arm() -> None:
        original, calls = getattr(owner, name), itertools.count(1)

        def dies(*arguments: Any, **named: Any) -> Any:
            now = which == next(calls) if isinstance(which, int) else which in repr((arguments, named))
            if now and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **named)
            if now:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, dies)

    return arm


def half_a_file() -> None:
    """Die when half of the first checkpoint's weights are written."""

    def dies(learner: Learner, path: Path) -> None:
        original(learner, path)
        if "checkpoint-10" in str(path):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    original = Learner.save_state
    Learner.save_state = dies  # type: ignore[method-assign, assignment]


MOMENTS: dict[str, Callable[[], None]] = {
    "before the first checkpoint": at_call(trainer.PhaseTrainer, "training_step", 8),
    "half of the weights written": half_a_file,
    "checkpoint not sealed": at_call(checkpoints, "seal", "checkpoint-10"),
    "between checkpoints": at_call(trainer.PhaseTrainer, "training_step", 16),
    "after two checkpoints": at_call(trainer.PhaseTrainer, "training_step", 26),
    "old checkpoint removed, new one not sealed": at_call(transformers.trainer, "rotate_checkpoints", 2, after=True),
    "in a validation": at_call(trainer.PhaseTrainer, "evaluate", 2),
    "finished phase not sealed": at_call(checkpoints, "seal", "finished"),
    "phase finished": at_call(checkpoints.PhaseCheckpoints, "finish", 1, after=True),
    "model half written": at_call(teacher, "save", 1, after=True),
    "second checkpoint not sealed": at_call(checkpoints, "seal", 2),
}


def run(order: dict[str, str]) -> int:
    """Run one stage in a process of its own."""
    child = os.fork()
    if child == 0:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(order["folder"])
        if order["dies"]:
            MOMENTS[order["dies"]]()
        code = launcher.main([order["stage"]])
        sys.stdout.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)
