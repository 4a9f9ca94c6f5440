"""Which layers: those a student keeps, and those of the teacher that it learns from; needs no PyTorch.

So that a run can refuse a choice at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from components.errors import UserError


def choose_layers(total: int, layers: int | list[int], take: str) -> list[int]:
    """Indices of the teacher's layers that the student keeps, ascending from 0.

    Args:
        total: the teacher's number of layers.
        layers: how many, or the indices themselves.
        take: ``lower``, ``upper`` or ``uniform`` (evenly spaced, the first and the last included);
            not used where the indices are given.

    Raises:
        UserError: more layers than the teacher has, or an index it lacks.
    """
    if isinstance(layers, list):
        if sorted(set(layers)) != layers or layers[-1] >= total:
            raise UserError(
                f"distill.student.layers: expected ascending indices below {total}, got {layers}.",
                "Count the teacher's layers from 0.",
                "parameters",
            )
        return layers
    if layers > total:
        raise UserError(
            f"distill.student.layers: the teacher has {total} layers, got {layers}.",
            f"Choose at most {total}.",
            "parameters",
        )
    if take == "lower":
        return list(range(layers))
    if take == "upper":
        return list(range(total - layers, total))
    return [round(index * (total - 1) / max(layers - 1, 1)) for index in range(layers)]


def map_layers(given: Sequence[int | None] | None, student: int, teacher: int, key: str) -> dict[int, int]:
    """The teacher's layer that each of the student's layers learns from; both count from 0.

    Args:
        given: one entry for each of the student's layers, None for one that learns from no layer. None spreads
            the teacher's layers evenly and ends at the last, as TinyBERT does (Jiao et al. 2020): layer ``i`` learns
            from ``ceil((i + 1) * teacher / student) - 1``. That holds for students made of the teacher's layers too:
            the layers they began as would only hold them where they are.
        student: the student's number of layers.
        teacher: the teacher's.
        key: what errors call the list.

    Raises:
        UserError: another number of entries, none but nulls, or a layer that the teacher lacks.
    """
    if given is None:
        return {index: math.ceil((index + 1) * teacher / student) - 1 for index in range(student)}
    if len(given) != student:
        raise UserError(
            f"{key}: expected one entry for each of the student's {student} layers, got {len(given)}.",
            "Give each the number of a teacher's layer, counted from 0, or null to leave it out.",
            "parameters",
        )
    pairs = {index: layer for index, layer in enumerate(given) if layer is not None}
    if not pairs:
        raise UserError(f"{key}: expected some layer, got only nulls.", "Set the term to null instead.", "parameters")
    for layer in pairs.values():
        one_layer(layer, teacher, key, "teacher")
    return pairs


def one_layer(given: int | None, total: int, key: str, whose: str) -> int:
    """The layer that is named; the last for None.

    Raises:
        UserError: there are fewer layers.
    """
    if given is not None and given >= total:
        raise UserError(
            f"{key}: the {whose} has {total} layers, got layer {given}.",
            f"Count from 0; the last one is {total - 1}.",
            "parameters",
        )
    return total - 1 if given is None else given
