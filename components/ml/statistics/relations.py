"""The official score of SemEval-2010 Task 8: relations between two entities that have a direction."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

OTHER = "Other"

_DIRECTED = re.compile(r"(.+)\((?:e1,e2|e2,e1)\)")


def directed_macro_f1(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Macro F1, (9+1)-way, with directionality taken into account (Hendrickx et al. 2010, section 4), of shape (...).

    Both directions of a relation are put together: a wrong direction is no hit, but counts among the relation's
    predicted and actual rows. "Other" is left out, and so is any label without a direction where others have one. As
    in the task's scorer, the mean runs over the relations that occur among the actual rows; 0 where none does.

    Args:
        hits: rows of a label predicted right, of shape (..., labels).
        predicted: rows predicted as the label, same shape.
        actual: rows of the label, same shape.
        labels: their names, such as "Cause-Effect(e1,e2)".
    """
    names = _relations(labels)
    relations = sorted(set(names) - {""})
    member = np.array([[name == relation for relation in relations] for name in names], dtype=np.int64)
    right, guessed, there = hits @ member, predicted @ member, actual @ member
    f1 = 2 * right / np.maximum(guessed + there, 1)
    present = there > 0
    return np.asarray((f1 * present).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


def _relations(labels: Sequence[str]) -> list[str]:
    """The relation of each label, "" where it is left out."""
    matches = [_DIRECTED.fullmatch(label) for label in labels]
    if any(matches):
        return [match[1] if match else "" for match in matches]
    return ["" if label == OTHER else label for label in labels]
