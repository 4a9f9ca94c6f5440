"""Stages chosen by name, from one on, and up to one."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import UserError
from flows.repo.choice import EVERYTHING, Choice
from flows.repo.graph import Stage

#   data - teacher - label - student - report
#     \-- plain ------------------------/
EDGES = {
    "data": set[str](),
    "teacher": {"data"},
    "plain": {"data"},
    "label": {"teacher"},
    "student": {"label"},
    "report": {"student", "plain"},
}
STAGES = {name: Stage(name, "true", [], [Path(name)], [], upstream) for name, upstream in EDGES.items()}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Choice(), list(EDGES)),
        (Choice(("report", "data", "data")), ["data", "report"]),
        (Choice(first="label"), ["label", "student", "report"]),
        (Choice(last="label"), ["data", "teacher", "label"]),
        (Choice(first="teacher", last="student"), ["teacher", "label", "student"]),
        (Choice(first="data", last="report"), list(EDGES)),
        (Choice(first="label", last="label"), ["label"]),
        (Choice(("plain",), first="student"), ["plain", "student", "report"]),
        (Choice(("report",), last="teacher"), ["data", "teacher", "report"]),
    ],
)
def test_stages_are_chosen_in_the_graphs_order(choice: Choice, names: list[str]) -> None:
    assert choice.names(STAGES) == names
    assert (choice == EVERYTHING) == (choice == Choice())


@pytest.mark.parametrize("choice", [Choice(("lable",)), Choice(first="lable"), Choice(last="lable")])
def test_an_unknown_stage_is_named_with_the_nearest_one_and_all_there_are(choice: Choice) -> None:
    with pytest.raises(UserError, match=r"There is no stage 'lable'\. Did you mean 'label'\?") as caught:
        choice.names(STAGES)
    assert "data, teacher, plain, label, student, report" in caught.value.remedy


def test_all_unknown_stages_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Choice(("label", "xyz"), last="教师").names(STAGES)
    assert caught.value.message == "There is no stage 'xyz'.\nThere is no stage '教师'."


def test_two_ends_with_nothing_between_them_are_refused() -> None:
    with pytest.raises(UserError, match="label doesn't depend on student"):
        Choice(first="student", last="label").names(STAGES)
    with pytest.raises(UserError, match="No stage lies between plain and student"):
        Choice(("data",), first="plain", last="student").names(STAGES)
