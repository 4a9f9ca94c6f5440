"""Reuses what frozen lower layers compute across a phase's epochs, where that is allowed and pays."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components.ml.reuse.activations import ITEMSIZE, Collate, CollatorWithStates, Rows, RowsWithStates, agrees, compute
from components.ml.reuse.frozen import Model, frozen_depth, quiet, width_of
from components.ml.reuse.replay import reusing

GB = 10**9


@dataclass(frozen=True)
class Reuse:
    """What to train with: the rows, and how to make batches of them. Reused or not, the results agree."""

    rows: Any
    held_out: Any
    collate: Collate


@contextlib.contextmanager
def reuse(
    phase: str,
    model: Model,
    rows: Rows,
    held_out: Rows,
    collate: Collate,
    *,
    epochs: float,
    folder: Path,
    budget_gb: float,
    dtype: str = "float32",
    obstacle: str | None = None,
) -> Iterator[Reuse]:
    """Train within the block. Where the model's lower layers are frozen, their dropout is off, and their output is
    computed once, kept in ``folder`` for as long as the block lasts and put in from then on.

    Whether it is reused depends on the parameters, the model and the rows alone, never on time or free space. It is
    said what was done, and after the block how much faster that was.

    Args:
        phase: its name, for what is said.
        model: what is called with ``input_ids``, ``attention_mask`` ... and ``frozen_states`` of a batch; already on
            its device, and with the parameters frozen that never train in this phase.
        rows: to train on.
        held_out: to validate on.
        collate: makes a batch of items, with an ``attention_mask``.
        epochs: passes over ``rows``.
        budget_gb: what the activations may take on the disk, in 10^9 bytes.
        dtype: of mixed precision; float32 for none.
        obstacle: why the activations can't be reused in this phase, as the end of a sentence; None if they can.
            With one, ``rows`` and ``held_out`` may be anything.

    Raises:
        OSError: the disk is full.
    """
    depth = frozen_depth(model)
    if depth == 0:
        yield Reuse(rows, held_out, collate)
        return
    precision = _precision(model, dtype)
    with quiet(model, depth) as said, contextlib.ExitStack() as stack:
        why_not = obstacle or _why_not(model, depth, (rows, held_out), budget_gb, epochs)
        if why_not is None:
            began = time.perf_counter()
            found = stack.enter_context(_computed(model, depth, (rows, held_out), collate, folder, precision))
            if not all(agrees(model, depth, one, collate, precision) for one in found):
                why_not = "in this model they depend on more than the text itself"
        if why_not is not None:
            print(f"phase {phase}: {said}; their activations aren't reused: {why_not}", flush=True)
            yield Reuse(rows, held_out, collate)
            return
        spent = time.perf_counter() - began
        print(f"phase {phase}: {said}; {_told(found, budget_gb)}, computed once in {spent:.1f} s", flush=True)
        stack.enter_context(_measured(phase, model, depth, found, spent))
        yield Reuse(*found, CollatorWithStates(collate, found[0].activations.dtype))


def _precision(model: Model, dtype: str) -> AbstractContextManager[Any]:
    """Mixed precision as the Trainer has it."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(model.device.type, getattr(torch, dtype))


def _why_not(model: Model, depth: int, sets: tuple[Rows, Rows], budget_gb: float, epochs: float) -> str | None:
    """Why the activations aren't worth their room; None if they are."""
    if epochs <= 1:
        return "each text is read but once"
    needed = sum(sum(one.lengths) for one in sets) * width_of(model, depth) * ITEMSIZE
    if needed > budget_gb * GB:
        return f"they need {_gb(needed)} GB, and runtime.reuse_gb allows {budget_gb:g} GB"
    return None


@contextlib.contextmanager
def _computed(
    model: Model,
    depth: int,
    sets: tuple[Rows, Rows],
    collate: Collate,
    folder: Path,
    precision: AbstractContextManager[Any],
) -> Iterator[tuple[RowsWithStates, RowsWithStates]]:
    """The rows with their activations, in files that are gone after the block."""
    paths = [folder / f"activations-{index}" for index in range(len(sets))]
    try:
        first, second = (
            RowsWithStates(rows, compute(model, depth, rows, collate, path, precision))
            for rows, path in zip(sets, paths, strict=True)
        )
        yield first, second
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _told(found: tuple[RowsWithStates, RowsWithStates], budget_gb: float) -> str:
    tokens = sum(sum(one.lengths) for one in found)
    held = sum(one.activations.states.nbytes for one in found)
    return f"activations of {tokens:,} tokens, {_gb(held)} of {budget_gb:g} GB allowed"


def _gb(size: int) -> str:
    """Three digits that count: 0.0921, 12.3."""
    return f"{size / GB:.3g}"


@contextlib.contextmanager
def _measured(
    phase: str, model: Model, depth: int, found: tuple[RowsWithStates, RowsWithStates], spent: float
) -> Iterator[None]:
    """Put the activations in; afterwards say how much faster that was, ``spent`` seconds beforehand included."""
    began = time.perf_counter()
    with reusing(model, depth) as source:
        yield
    if source.positions:
        faster = _faster(found, source.positions, time.perf_counter() - began, spent)
        print(f"phase {phase}: about {faster:.1f} times as fast as without reused activations", flush=True)


def _faster(found: tuple[RowsWithStates, RowsWithStates], reused: int, trained: float, spent: float) -> float:
    """The time without reuse over the time with it.

    Without, the frozen layers would have computed the reused tokens at the speed at which they computed them once.

    Args:
        found: with what the activations took to compute.
        reused: tokens, padding included, for which nothing had to be computed.
        trained: seconds with reuse.
        spent: seconds that were spent on the activations beforehand.
    """
    seconds = sum(one.activations.seconds for one in found)
    positions = sum(one.activations.positions for one in found)
    return (trained + reused * seconds / positions) / (trained + spent)
