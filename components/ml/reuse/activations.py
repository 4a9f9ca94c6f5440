"""The hidden states of all rows in one memory-mapped file: computed once, read row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from components.ml.reuse.frozen import Model, encoder_of, evaluating
from components.ml.reuse.replay import recording, reusing
from components.ml.training.objectives import FROZEN_STATES

POSITIONS = 4096
"""Tokens of a batch, padding included, where activations are computed."""
ITEMSIZE = 4  # float32, whatever the run computes in
_FEATURES = ("input_ids", "attention_mask", "token_type_ids")

Item = dict[str, Any]
Collate = Callable[[list[Item]], dict[str, Tensor]]


class Rows(Protocol):
    """Tokenised rows: items with ``input_ids``, and the length of each."""

    lengths: list[int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


class Activations:
    """Hidden states by row, each of shape (tokens, width), in float32, read from a memory-mapped file.

    Args:
        path: the file that :func:`compute` wrote.
        lengths: tokens of each row.
        width: numbers of each token.
        dtype: the format that the model computed them in, and takes them in.
    """

    def __init__(self, path: Path, lengths: Sequence[int], width: int, dtype: torch.dtype = torch.float32) -> None:
        self.starts = _starts(lengths)
        self.states = np.memmap(path, np.float32, "r", shape=(int(self.starts[-1]), width))
        self.dtype = dtype
        self.seconds = 0.0
        """What the model took to compute them, without reading and writing."""
        self.positions = 0
        """The tokens it computed, padding included."""

    def __getitem__(self, row: int) -> np.ndarray:
        return self.states[self.starts[row] : self.starts[row + 1]]


class RowsWithStates(Dataset[Item]):
    """Rows whose items also carry their hidden states."""

    def __init__(self, rows: Rows, activations: Activations) -> None:
        self.rows = rows
        self.activations = activations
        self.lengths = rows.lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        return self.rows[index] | {FROZEN_STATES: self.activations[index]}


class CollatorWithStates:
    """``collate``, and the rows' hidden states padded with zeros, on the side where the ids are padded."""

    def __init__(self, collate: Collate, dtype: torch.dtype = torch.float32) -> None:
        self.collate = collate
        self.dtype = dtype

    def __call__(self, items: list[Item]) -> dict[str, Tensor]:
        plain = [{name: value for name, value in item.items() if name != FROZEN_STATES} for item in items]
        batch = self.collate(plain)
        if all(FROZEN_STATES in item for item in items):
            batch[FROZEN_STATES] = _padded([item[FROZEN_STATES] for item in items], batch["attention_mask"], self.dtype)
        return batch


def compute(
    model: Model, depth: int, rows: Rows, collate: Collate, path: Path, precision: AbstractContextManager[Any]
) -> Activations:
    """Write what the lowest ``depth`` layers compute for each row to ``path``; one batch is held at a time.

    Args:
        model: on the device that it shall compute on.
        collate: makes a batch of items.
        precision: in which to compute; may be entered again and again.

    Raises:
        OSError: the disk is full.
    """
    starts, seconds, positions = _starts(rows.lengths), 0.0, 0
    width, dtype = 0, torch.float32
    with path.open("wb") as file, recording(model, depth) as record:
        for batch_rows in _similar(rows.lengths):
            batch = collate([rows[index] for index in batch_rows])
            features, mask = _features(batch, model.device), batch["attention_mask"].bool()
            began = _now(model.device)
            with precision:
                states = record(features)
            seconds += _now(model.device) - began
            positions += mask.numel()
            width, dtype = states.shape[-1], states.dtype
            _write(file, states[mask.to(states.device)], batch_rows, starts)
    activations = Activations(path, rows.lengths, width, dtype)
    activations.seconds, activations.positions = seconds, positions
    return activations


def agrees(
    model: Model, depth: int, rows: RowsWithStates, collate: Collate, precision: AbstractContextManager[Any]
) -> bool:
    """Whether the shortest row comes out of the encoder the same with reuse, alone and padded beside the longest.

    Not so where padding changes what the layers compute (absolute positions, padded on the left), or where the
    architecture has more between its layers than what is put in.
    """
    by_length = sorted((length, index) for index, length in enumerate(rows.lengths) if length)
    collected = CollatorWithStates(collate, rows.activations.dtype)
    tolerance = 1e-3 if rows.activations.dtype == torch.float32 else 5e-2
    for chosen in (by_length[:1], [by_length[0], by_length[-1]]):
        batch = collected([rows[index] for _, index in chosen])
        plain, again = _with_and_without(model, depth, batch, precision)
        if (again - plain).abs().max() > tolerance * plain.abs().max():
            return False
    return True


def _with_and_without(
    model: Model, depth: int, batch: dict[str, Tensor], precision: AbstractContextManager[Any]
) -> tuple[Tensor, Tensor]:
    """What the encoder makes of a batch's tokens, without reuse and with it; each of shape (tokens, width)."""
    features, mask = _features(batch, model.device), batch["attention_mask"].bool().to(model.device)
    encoder = encoder_of(model)
    with evaluating(encoder), torch.no_grad(), precision:
        plain = encoder(**features)[0][mask]
        with reusing(model, depth) as source:
            source.states = batch[FROZEN_STATES].to(model.device)
            again = encoder(**features)[0][mask]
    return plain.float(), again.float()


def _starts(lengths: Sequence[int]) -> np.ndarray:
    """Where each row starts, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _similar(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of rows by falling length; rows without tokens are left out."""
    batch: list[int] = []
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[batch[0]] > POSITIONS:
            yield batch
            batch = []
        if lengths[index]:
            batch.append(index)
    if batch:
        yield batch


def _features(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: batch[name].to(device) for name in _FEATURES if name in batch}


def _write(file: BinaryIO, states: Tensor, rows: list[int], starts: np.ndarray) -> None:
    """Each row's states to its place. Plain writes: on a full disk a memory map would end the process."""
    values = states.float().cpu().numpy()
    done = 0
    for row in rows:
        length = int(starts[row + 1] - starts[row])
        file.seek(int(starts[row]) * values.shape[1] * ITEMSIZE)
        file.write(values[done : done + length].tobytes())
        done += length
    assert done == len(values), "the collator's mask shows other tokens than the rows have"


def _padded(states: list[np.ndarray], mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Of shape (rows, tokens, width): zeros where the mask shows padding."""
    found = torch.from_numpy(np.concatenate(states)).to(dtype)
    padded = found.new_zeros((*mask.shape, found.shape[-1]))
    padded[mask.bool()] = found
    return padded


def _now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()
    return time.perf_counter()
