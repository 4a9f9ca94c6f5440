"""Which of a teacher's layers a student keeps; needs no PyTorch, so that a run can refuse a choice at once."""

from __future__ import annotations

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
