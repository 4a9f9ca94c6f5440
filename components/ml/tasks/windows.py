"""What a model reads of rows, in one piece or in windows, and how what it says of windows becomes a row's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import UserError
from components.ml.rows.inputs import Input, encode
from components.ml.tasks.task import Reading, Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEATURES = ("input_ids", "token_type_ids", "attention_mask")


def whole_rows(tokenizer: PreTrainedTokenizerBase, inputs: Sequence[Input], reading: Reading) -> list[list[Window]]:
    """Rows that are judged as a whole: one window, or several of a long single text where there is a stride."""
    options: dict[str, Any] = {"truncation": True, "max_length": reading.max_length}
    if reading.stride is None or not inputs or not isinstance(inputs[0], str):
        encoded = encode(tokenizer, inputs, **options)
        return [[Window(features_at(encoded, index))] for index in range(len(inputs))]
    encoded = encode(tokenizer, inputs, **options, **overflowing(tokenizer, reading))
    found: list[list[Window]] = [[] for _ in inputs]
    for index, row in enumerate(encoded["overflow_to_sample_mapping"]):
        found[row].append(Window(features_at(encoded, index)))
    return found


def overflowing(tokenizer: PreTrainedTokenizerBase, reading: Reading, room: int | None = None) -> dict[str, Any]:
    """The tokenizer's options for windows, which hold ``room`` tokens of what is cut; None for single texts.

    Raises:
        UserError: the tokenizer is a slow one, or the stride leaves no room for anything new.
    """
    if not tokenizer.is_fast:
        raise UserError(
            "data.windows.stride needs a fast tokenizer; the base model's is a slow one.",
            "Save a fast tokenizer (tokenizer.json) beside the base model, or set data.windows.stride to null.",
            "parameters",
        )
    if room is None:
        room = reading.max_length - tokenizer.num_special_tokens_to_add(pair=False)
    stride = reading.stride or 0
    if stride >= room:
        raise UserError(
            f"data.windows.stride is {stride}, but windows of {reading.max_length} tokens hold {room} of a text.",
            f"Set data.windows.stride below {room}.",
            "parameters",
        )
    return {"stride": stride, "return_overflowing_tokens": True}


def features_at(encoded: Any, index: int) -> dict[str, Any]:
    """What a model is given of one encoded window."""
    return {name: encoded[name][index] for name in FEATURES if name in encoded}


def pooled(logits: Sequence[np.ndarray], reading: Reading) -> np.ndarray:
    """The mean, or the largest, of each class over a row's windows: float32 of shape (1, classes).

    Args:
        logits: of each window, of shape (classes,).
    """
    if len(logits) == 1:
        return np.asarray(logits[0])[None]
    stacked = np.stack(logits)
    one = stacked.max(axis=0) if reading.pooling == "max" else stacked.mean(axis=0, dtype=np.float64)
    return np.asarray(one, dtype=np.float32)[None]


def best_covered(windows: Sequence[Window], logits: Sequence[np.ndarray], positions: int, classes: int) -> np.ndarray:
    """Logits of a row whose positions stand in several windows: each from the window with the most around it.

    That is the "maximum context" of BERT's code for questions (Devlin et al. 2019): the lesser of the number of
    positions before and behind it counts.

    Args:
        windows: of the row.
        logits: of each, of shape (at, classes).
        positions: how many the row has.

    Returns:
        float32 of shape (positions, classes); NaN where no window covers a position.
    """
    merged = np.full((positions, classes), np.nan, dtype=np.float32)
    context = np.full(positions, -1)
    for window, found in zip(windows, logits, strict=True):
        covers = np.asarray(window.covers, dtype=np.int64)
        around = np.minimum(np.arange(len(covers)), len(covers) - 1 - np.arange(len(covers)))
        better = around > context[covers]
        merged[covers[better]], context[covers[better]] = found[better], around[better]
    return merged
