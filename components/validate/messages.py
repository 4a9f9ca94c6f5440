"""What a failed rule says in one line, with a row to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.validate.rules import Check, Outcome


def failed(verdicts: Sequence[Mapping[str, Any]], severity: str) -> list[Mapping[str, Any]]:
    """The rules of a severity that failed."""
    return [verdict for verdict in verdicts if verdict["severity"] == severity and verdict["passed"] is False]


def lines(verdict: Mapping[str, Any], target: str) -> Iterator[str]:
    """What a failed rule found, a line for each split or class, with an example where there is one.

    ``target`` is the role of what is to be predicted, such as label or score.
    """
    for finding in verdict["findings"]:
        examples = [example for example in verdict["examples"] if example["what"] == finding["what"]]
        yield f"{verdict['rule']}: {finding['says']}" + (f"; see {_example(examples[0], target)}" if examples else "")


def share_sentence(check: Check, outcome: Outcome, max_share: float, named: Mapping[str, int]) -> str:
    """How many rows break a rule and how many may; and what is ``named`` in them, with its rows."""
    share = f"{outcome.failing / outcome.of:.2%}; at most {100 * max_share:.4g}% allowed"
    listed = ", ".join(f"{name!r} ({rows:,})" for name, rows in named.items())
    return f"{outcome.failing:,} of {outcome.of:,} {check.what} ({share})" + (f": {listed}" if listed else "")


def class_sentence(found: Mapping[str, Any], bound: Mapping[str, float], split: str) -> str:
    """How few rows a class has (``label``, ``rows``, ``share``), and how many it should have."""
    rows = f"{found['rows']:,} row{'' if found['rows'] == 1 else 's'}"
    if "min_rows" in bound:
        return f"the class {found['label']!r} has {rows} in {split}; at least {bound['min_rows']} are needed"
    return (
        f"the class {found['label']!r} has {rows}, {found['share']:.1%} of {split}; "
        f"at least {bound['min_share']:.1%} are expected"
    )


def classes_sentence(check: Check, outcome: Outcome, small: Sequence[Mapping[str, Any]]) -> str:
    """How many classes are too small, and the first ``small`` ones with their rows."""
    listed = ", ".join(f"{found['label']!r} ({found['rows']:,})" for found in small)
    return f"{outcome.failing:,} {check.what}: {listed}" + (", ..." if len(small) < outcome.failing else "")


def _example(example: Mapping[str, Any], target: str) -> str:
    shown = "no text" if example["text"] is None else repr(example["text"][:60])
    told = f" ({target} {example['label'][:60]!r})" if example["label"] is not None else ""
    like = example.get("like")
    also = f", like row {like['row']} of {like['file']}" if like else ""
    return f"row {example['row']} of {example['file']}{told}: {shown}{also}"
