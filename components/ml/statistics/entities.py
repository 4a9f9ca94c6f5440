"""Entities in tag sequences (IOB1, IOB2, BIOES), and their scores.

Entities are read as seqeval's default mode reads them (Nakayama 2018), which is conlleval's reading (Tjong Kim Sang &
Buchholz 2000): no scheme has to be named, and of an invalid sequence what can be read is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.ml.statistics.metrics import macro_scores

_OUTSIDE = ("O", ".")


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of a sequence: (type, first tag, tag after the last).

    An entity ends before B- and S-, after E- and S-, at O and where the type changes; I- and E- begin one where none
    is open. A tag without a type, such as "B", has the type "_".
    """
    found = []
    first, prefix_before, type_before = 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, type_ = _read(tag)
        changed = type_ != type_before
        inside = prefix_before not in _OUTSIDE
        if (
            prefix_before in ("E", "S")
            or (prefix_before in ("B", "I") and prefix in ("B", "S", "O"))
            or (inside and changed)
        ):
            found.append((type_before, first, place))
        if (
            prefix in ("B", "S")
            or (prefix in ("E", "I") and prefix_before in ("E", "S", "O"))
            or (prefix not in _OUTSIDE and changed)
        ):
            first = place
        prefix_before, type_before = prefix, type_
    return found


def entity_types(labels: Sequence[str]) -> list[str]:
    """The types of entities that tags of these names can mark, sorted."""
    read = [_read(label) for label in labels]
    return sorted({type_ for prefix, type_ in read if prefix not in _OUTSIDE})


def entity_counts(
    actual: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], types: Sequence[str]
) -> np.ndarray:
    """Each row's entities by type: hits (same type, same span), then predicted, then actual.

    Args:
        actual: the tags of each row.
        predicted: the predicted tags of each row.
        types: all types that occur.

    Returns:
        int64 of shape (rows, 3 * types).
    """
    place = {type_: index for index, type_ in enumerate(types)}
    counts = np.zeros((len(actual), 3, len(place)), dtype=np.int64)
    for row, (right, guessed) in enumerate(zip(actual, predicted, strict=True)):
        theirs, ours = set(entities(right)), set(entities(guessed))
        for kind, spans in enumerate((theirs & ours, ours, theirs)):
            for type_, _, _ in spans:
                counts[row, kind, place[type_]] += 1
    return counts.reshape(len(actual), -1)


def entity_scores(sums: np.ndarray, types: int) -> dict[str, np.ndarray]:
    """Micro ``precision``, ``recall`` and ``f1``, and ``macro_f1``, each of shape (...), as seqeval has them.

    The macro average runs over the types that occur among the actual or the predicted entities; a score without a
    denominator is 0.

    Args:
        sums: sums over rows of ``entity_counts``, of shape (..., 3 * types).
        types: how many types there are.
    """
    hits, predicted, actual = (sums[..., first : first + types] for first in (0, types, 2 * types))
    right, guessed, there = (counts.sum(axis=-1) for counts in (hits, predicted, actual))
    return {
        "precision": np.asarray(right / np.maximum(guessed, 1)),
        "recall": np.asarray(right / np.maximum(there, 1)),
        "f1": np.asarray(2 * right / np.maximum(guessed + there, 1)),
        "macro_f1": macro_scores(hits, predicted, actual).f1,
    }


def sequence_fault(tags: Sequence[str]) -> tuple[int, str] | None:
    """Where and why a sequence is valid in none of IOB1, IOB2 and BIOES; None where it is valid in one.

    IOB1 (Ramshaw & Marcus 1995) begins an entity with B- only directly after another of its type, IOB2 (Tjong Kim
    Sang & Veenstra 1999) every entity. With E- or S- tags a sequence can only be BIOES; without them, the fault is
    that of the scheme that the sequence keeps to for longest.
    """
    if any(tag.startswith(("E-", "S-")) for tag in tags):
        return _bioes_fault(tags)
    first, second = _iob_fault(tags, "I"), _iob_fault(tags, "B")
    return None if first is None or second is None else max(first, second, key=lambda fault: fault[0])


def _read(tag: str) -> tuple[str, str]:
    """Prefix and type of any tag, as seqeval's default mode reads it."""
    return tag[:1] or "O", tag[1:].split("-", maxsplit=1)[-1] or "_"


def _split(tag: str) -> tuple[str, str] | None:
    """Prefix and type of a valid tag, ("O", "") outside; None where the tag is valid in no scheme."""
    prefix, _, type_ = tag.partition("-")
    if tag == "O":
        return "O", ""
    return (prefix, type_) if prefix in ("B", "I", "E", "S") and type_ else None


def _unknown(tag: str) -> str:
    return f"{tag!r} is neither O nor B-, I-, E- or S- with a type"


def _iob_fault(tags: Sequence[str], opening: str) -> tuple[int, str] | None:
    """The first fault in IOB1, where entities open with I-, or in IOB2, where they open with B-."""
    before = ""
    for place, tag in enumerate(tags):
        parts = _split(tag)
        if parts is None:
            return place, _unknown(tag)
        prefix, type_ = parts
        if prefix not in ("O", opening) and type_ != before:
            why = "which IOB2 has only after B- or I-" if opening == "B" else "which IOB1 has only after I- or B-"
            return place, f"{tag} {_after(tags, place)}, {why} of its type"
        before = type_
    return None


def _bioes_fault(tags: Sequence[str]) -> tuple[int, str] | None:
    """The first fault in BIOES."""
    open_type = ""
    for place, tag in enumerate(tags):
        parts = _split(tag)
        if parts is None:
            return place, _unknown(tag)
        prefix, type_ = parts
        if prefix in ("I", "E") and type_ != open_type:
            return place, f"{tag} {_after(tags, place)}, which BIOES has only after B- or I- of its type"
        if prefix in ("B", "S", "O") and open_type:
            return place - 1, f"{tags[place - 1]} with neither I- nor E- of its type after it, which BIOES has"
        open_type = type_ if prefix in ("B", "I") else ""
    if open_type:
        return len(tags) - 1, f"{tags[-1]} at the end, where BIOES has E- or S-"
    return None


def _after(tags: Sequence[str], place: int) -> str:
    return f"directly after {tags[place - 1]}" if place else "at the start"
