"""Several tasks over one encoder: a head and a loss each, and which task each batch of an epoch comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PreTrainedModel

from components.ml.rows.task_rows import TASK, TaskRows
from components.ml.training.batches import LengthBatches, seed_of
from components.ml.training.objectives import Batch, Objective
from components.params.phases import ByTemperature, ByWeight

Sampling = str | ByTemperature | ByWeight
SLOT = 8
"""What one task's objective may count at most."""


class MultiTaskModel(nn.Module):
    """Models of several tasks that share one encoder; ``parameters`` tells shared ones once, under the first task.

    Args:
        models: by task, the target first.
    """

    def __init__(self, models: Mapping[str, PreTrainedModel]) -> None:
        super().__init__()
        # Not the bare names, since ModuleDict refuses some, such as "train".
        self.models = nn.ModuleDict({f"task_{task}": model for task, model in models.items()})

    def model_of(self, task: str) -> nn.Module:
        """The model of one task."""
        return self.models[f"task_{task}"]

    def forward(self, task: str, **features: Tensor) -> Any:
        """The output of the task's model."""
        return self.model_of(task)(**features)


class MultiTaskObjective(nn.Module):
    """The mean over an accumulated batch's micro-batches of their tasks' losses.

    Each task's loss is averaged over all its own micro-batches in the accumulated batch. So where all are of one
    task, it is that task's loss of the full batch. The model must be a :class:`MultiTaskModel`.

    Args:
        objectives: by task.
    """

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.objectives = dict(objectives)
        for task, objective in objectives.items():
            if isinstance(objective, nn.Module):  # so that its tensors move to the device, too
                self.add_module(f"objective_{task}", objective)

    def counts(self, batch: Batch) -> Tensor:
        """For each task its micro-batches and what its objective counts; of shape (tasks * (1 + SLOT),)."""
        own = self.objectives[_task(batch)].counts(batch)
        slots = own.new_zeros(len(self.objectives), 1 + SLOT)
        slots[self._place(batch), 0] = 1
        slots[self._place(batch), 1 : 1 + len(own)] = own
        return slots.flatten()

    def loss(self, model: nn.Module, batch: Batch, counts: Tensor) -> Tensor:
        """The part of the accumulated batch's loss; a scalar."""
        slots = counts.reshape(len(self.objectives), 1 + SLOT)
        objective, slot = self.objectives[_task(batch)], slots[self._place(batch)]
        own = slot[1 : 1 + len(objective.counts(batch))]
        return objective.loss(_model(model, batch), batch, own) * float(slot[0] / slots[:, 0].sum())

    def validate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What the objective of the batch's task measures."""
        return self.objectives[_task(batch)].validate(_model(model, batch), batch)

    def _place(self, batch: Batch) -> int:
        return list(self.objectives).index(_task(batch))


def _task(batch: Mapping[str, Any]) -> str:
    task: str = batch[TASK]
    return task


def _model(model: nn.Module, batch: Batch) -> nn.Module:
    assert isinstance(model, MultiTaskModel)
    return model.model_of(_task(batch))


class TaskBatches(Sampler[list[int]]):
    """Batches of row indices, each of one task; as many in every epoch as the tasks have in sum.

    Each task goes through its own batches to the end, then through them again in another order, also across epochs.
    The order depends on the seeds and the epoch alone, so that a resumed run repeats it.

    Args:
        batches: of each task's own rows.
        rows: of all tasks, in the same order.
        sampling: see :func:`task_counts`.
        seed: of the order of tasks.
    """

    def __init__(self, batches: Mapping[str, LengthBatches], rows: TaskRows, sampling: Sampling, seed: int) -> None:
        self.batches = dict(batches)
        self.rows = rows
        self.counts = task_counts({name: len(own) for name, own in batches.items()}, sampling, rows.sizes)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> Iterator[list[int]]:
        own = {name: _from(self.batches[name], self.epoch * count) for name, count in self.counts.items()}
        for name in task_schedule(self.counts, self.seed, self.epoch):
            yield [self.rows.starts[name] + index for index in next(own[name])]


def _from(batches: LengthBatches, first: int) -> Iterator[list[int]]:
    """A task's batches without end, starting from number ``first``."""
    turn, index = divmod(first, len(batches))
    while True:
        batches.set_epoch(turn)
        yield from islice(list(batches), index, None)
        turn, index = turn + 1, 0


def task_counts(batches: Mapping[str, int], sampling: Sampling, rows: Mapping[str, int]) -> dict[str, int]:
    """How many batches of an epoch each task gets; at least one, and in sum as many as the tasks have.

    Args:
        batches: how many batches each task has.
        sampling: ``proportional``: each as many as it has; ``temperature``: in proportion to ``rows ** (1 / T)``
            (Aharoni et al. 2019); ``weights``: in proportion to these. Shares are exact to less than a batch
            (largest remainders), unless a task would get none.
        rows: how many rows each task has.
    """
    if isinstance(sampling, ByTemperature):
        weights = {name: rows[name] ** (1 / sampling.temperature) for name in batches}
    elif isinstance(sampling, ByWeight):
        weights = {name: sampling.weights[name] for name in batches}
    else:
        return dict(batches)
    total = sum(batches.values())
    quotas = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    counts = {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    for name in (name for name in counts if counts[name] == 0):
        counts[max(counts, key=lambda other: counts[other])] -= 1
        counts[name] = 1
    return counts


def task_schedule(counts: Mapping[str, int], seed: int, epoch: int) -> list[str]:
    """The task of each batch of an epoch, shuffled by seed and epoch; every task as often as ``counts`` says."""
    names = [name for name, count in counts.items() for _ in range(count)]
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    return [names[index] for index in torch.randperm(len(names), generator=generator).tolist()]
