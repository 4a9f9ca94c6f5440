"""Given judgements as logits: what another model said of some texts, found by the exact text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.errors import UserError
from components.ml.rows.inputs import input_columns, input_key, inputs_of
from components.ml.rows.tokenised import read_batches
from components.ml.teaching.logit_store import LogitTable
from components.ml.teaching.teachers import Inputs

LEAST_PROBABILITY = 1e-6
"""What a judgement's 0 stands for: its logarithm must be finite."""


def look_up(judgements: Path, texts: Inputs, logits: np.ndarray, scratch: Path) -> None:
    """Set each row of ``logits`` to the logarithm of the probabilities that its text was given, or to NaN.

    Probabilities are clipped at ``LEAST_PROBABILITY`` and sum to 1 again. Of several judgements of one text the last
    one counts. They are kept in a file meanwhile, so that there may be any number.

    Args:
        judgements: folder of Parquet shards with ``text`` (``text_pair``) and ``probabilities`` (one for each class).
        texts: the rows of ``logits``, some at a time.
        logits: float64 array of shape (rows, classes) to fill.
        scratch: a folder for the file.

    Raises:
        UserError: a judgement has other classes.
    """
    table = LogitTable(scratch / "judgements.sqlite", logits.shape[1])
    try:
        for batch in read_batches(judgements, [*input_columns(judgements), "probabilities"]):
            given = batch["probabilities"].to_pylist()
            keys = [input_key(each) for each in inputs_of(batch)]
            table.put(keys, list(_logarithms(given, logits.shape[1])))
        for first, part in texts():
            found = table.get([input_key(each) for each in part])
            unknown = np.full(logits.shape[1], np.nan)
            logits[first : first + len(part)] = [unknown if one is None else one[0] for one in found]
    finally:
        table.close()


def _logarithms(given: list[list[float]], classes: int) -> np.ndarray:
    if wrong := next((each for each in given if len(each) != classes), None):
        raise UserError(
            f"Expected judgements with {classes} probabilities, one for each label; got {len(wrong)}: {wrong}.",
            "Give every label's probability in the file data.judgements, and train the teacher on the same labels.",
            "data",
        )
    clipped = np.array(given, dtype=np.float64).reshape(-1, classes).clip(min=LEAST_PROBABILITY)
    return np.asarray(np.log(clipped / clipped.sum(axis=1, keepdims=True)))
