"""Gradual unfreezing: the head trains first, then one more layer at a time, from the top down."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.ml.training.trainable import Level


class Thawing(TrainerCallback):
    """Gradual unfreezing (Howard & Ruder 2018, section 3.3).

    What trains depends on the step alone, so that a resumed run goes on as it was.

    Args:
        by_level: the parameters from the top down; those that don't require a gradient now never will.
        steps_per_layer: optimiser steps before the next level thaws; may be a fraction.
    """

    def __init__(self, by_level: list[Level], steps_per_layer: float) -> None:
        self.levels = [[one for one in level.values() if one.requires_grad] for level in by_level]
        self.levels = [level for level in self.levels if level]
        self.steps_per_layer = steps_per_layer
        self.thawed = 0

    def levels_at(self, step: int) -> int:
        """How many levels train in the step of this number, counted from 0."""
        return min(1 + math.floor(step / self.steps_per_layer + 1e-9), len(self.levels))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze what is still to come."""
        self._thaw(state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Thaw what is due."""
        self._thaw(state.global_step)

    def _thaw(self, step: int) -> None:
        wanted = self.levels_at(step)
        if wanted == self.thawed:
            return
        self.thawed = wanted
        for depth, level in enumerate(self.levels):
            for parameter in level:
                parameter.requires_grad_(depth < wanted)
        trains = sum(one.numel() for level in self.levels[:wanted] for one in level)
        print(f"step {step}: {wanted} of {len(self.levels)} levels train, {trains:,} parameters", flush=True)
