"""A phase's optimisation as the Trainer is told it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.training_args import OptimizerNames

from components.ml.training.optimisation import training_arguments
from components.params.phases import OPTIMIZERS, EarlyStopping, Phase
from components.params.stages import Runtime


def learning_rates(metric: str, values: list[float], tmp_path: Path) -> list[float]:
    """The learning rate after each validation."""
    stopping = EarlyStopping(metric=metric)
    phase = Phase(objective="labels", epochs=9.0, lr=1.0, schedule="reduce_on_plateau", early_stopping=stopping)
    arguments = training_arguments(phase, tmp_path, 1, Runtime(threads=1), None)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=phase.lr)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments.lr_scheduler_kwargs)
    found = []
    for value in values:
        schedule.step(value)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(("metric", "sign"), [("accuracy", 1), ("topics/macro_f1", 1), ("loss", -1), ("mean/loss", -1)])
def test_on_a_plateau_the_learning_rate_is_halved_and_while_things_get_better_it_stays(
    metric: str, sign: int, tmp_path: Path
) -> None:
    better = [1 + sign * value for value in (0.1, 0.2, 0.3, 0.4)]
    assert learning_rates(metric, better, tmp_path) == [1.0] * 4
    stalled = [1 + sign * value for value in (0.4, 0.4, 0.3, 0.4, 0.4)]
    assert learning_rates(metric, stalled, tmp_path) == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_every_optimiser_of_transformers_can_be_named_and_no_other() -> None:
    assert set(OPTIMIZERS) == {name.value for name in OptimizerNames}


@pytest.mark.parametrize("name", ["galore_adamw", "apollo_adamw"])
def test_optimisers_for_some_layers_are_told_all_linear_ones(name: str, tmp_path: Path) -> None:
    phase = Phase(objective="labels", epochs=1.0, lr=1.0, optimizer=name)
    assert training_arguments(phase, tmp_path, 1, Runtime(), None).optim_target_modules == "all-linear"


def test_batches_are_not_split_among_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    phase = Phase(objective="labels", epochs=1.0, lr=1.0)
    assert training_arguments(phase, tmp_path, 1, Runtime(device="cuda"), None).n_gpu == 1
