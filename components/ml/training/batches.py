"""The batches of an epoch: rows of similar length together, so many rows or so many tokens each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

BUCKET = 8
"""Lengths are rounded up to a multiple of this many tokens where batches are cut by tokens."""


class LengthBatches(Sampler[list[int]]):
    """Batches of row indices; the order depends on the seed and the epoch alone, so that a resumed run repeats it.

    By rows: the whole step's rows are shuffled and sorted by length within windows (transformers' length grouping).
    By tokens: rows of one length bucket are shuffled, and the sorted rows are cut so that no batch holds more than
    ``tokens``, padding included; the batches come in random order. There are as many in every epoch.

    Args:
        lengths: tokens of each row.
        rows: rows of a batch; not used where ``tokens`` is given.
        tokens: tokens of a batch, padding included; a longer row is a batch of its own.
        accumulate: batches of a step.
        seed: of the order.
    """

    def __init__(
        self, lengths: Sequence[int], *, rows: int, tokens: int | None = None, accumulate: int = 1, seed: int = 0
    ) -> None:
        self.lengths = list(lengths)
        self.rows, self.tokens = rows, tokens
        self.accumulate = accumulate
        self.seed, self.epoch = seed, 0
        self.listeners: list[Callable[[int], None]] = []
        self.sizes = [] if tokens is None else _sizes([_rounded(length) for length in self.lengths], tokens)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; whoever listens is told."""
        self.epoch = epoch
        for listener in self.listeners:
            listener(epoch)

    def __len__(self) -> int:
        return len(self.sizes) if self.tokens is not None else math.ceil(len(self.lengths) / self.rows)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        return iter(self._by_rows(generator) if self.tokens is None else self._by_tokens(generator))

    def _by_rows(self, generator: torch.Generator) -> list[list[int]]:
        order = get_length_grouped_indices(self.lengths, self.rows * self.accumulate, generator=generator)
        return [order[start : start + self.rows] for start in range(0, len(order), self.rows)]

    def _by_tokens(self, generator: torch.Generator) -> list[list[int]]:
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        order = sorted(shuffled, key=lambda index: -_rounded(self.lengths[index]))
        batches, start = [], 0
        for size in self.sizes:
            batches.append(order[start : start + size])
            start += size
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def seed_of(seed: int, epoch: int) -> int:
    """The seed of one epoch."""
    return seed * 1_000_003 + epoch


def _rounded(length: int) -> int:
    return math.ceil(length / BUCKET) * BUCKET


def _sizes(lengths: list[int], tokens: int) -> list[int]:
    """Rows of each batch when rows of falling length are cut by tokens: the same for any order within a length."""
    sizes: list[int] = []
    longest = 0
    for length in sorted(lengths, reverse=True):
        if sizes and (sizes[-1] + 1) * longest <= tokens:
            sizes[-1] += 1
        else:
            sizes.append(1)
            longest = length
    return sizes


class LongestFirst(Sampler[int]):
    """Rows by falling length: the least padding, and no random number is drawn."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)
