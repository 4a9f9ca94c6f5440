"""Promoting and taking back by hand, over what the gate has said."""

from __future__ import annotations

from typing import Any

import pytest

from components.errors import UserError
from flows.gating import by_hand

Project = Any  # tests/flows/gating/conftest.py


@pytest.fixture
def refused(champion_of_100: Project) -> Project:
    """Version 1 is champion, version 2 was found worse."""
    champion_of_100.make("b", skill=70)
    assert not champion_of_100.judge()["promoted"]
    return champion_of_100


def test_the_candidate_is_promoted_over_the_gate_and_both_reasons_are_kept(refused: Project) -> None:
    old, new = by_hand.promote(refused.registry, None, "真好")
    assert old
    assert (old.number, new.number) == ("1", "2")
    assert refused.registry.aliases == {"candidate": "2", "champion": "2", "previous": "1"}
    decision = refused.registry.decisions["2"]
    assert (decision["promoted"], decision["outcome"], decision["test"]) == (True, "by hand", "rows-1")
    assert decision["reasons"][0] == "Promoted by hand: 真好."
    assert decision["reasons"][1].startswith("Before: Version 2 is worse than the champion")
    assert refused.registry.runs["run of finetune b"] == decision


def test_a_version_that_is_champion_already_is_left_as_it_is(refused: Project) -> None:
    before = dict(refused.registry.decisions)
    old, new = by_hand.promote(refused.registry, "1", None)
    assert old == new
    assert refused.registry.decisions == before
    assert "previous" not in refused.registry.aliases


def test_the_gate_does_not_undo_a_choice_by_hand_but_a_newer_model_may_win(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=130)
    assert project.judge()["promoted"]
    by_hand.promote(project.registry, "1", None)
    made = project.registry.decisions["2"]
    again = project.judge()  # as a schedule would, with unchanged results
    assert (again["promoted"], again["outcome"], project.champion()) == (False, "overruled", "1")
    assert project.registry.decisions["2"] == made
    project.make("c", skill=140)
    assert project.judge()["promoted"]
    assert project.champion() == "3"


def test_versions_that_are_not_there_or_have_no_files_are_refused(refused: Project) -> None:
    with pytest.raises(UserError, match="has no version 7") as caught:
        by_hand.promote(refused.registry, "7", None)
    assert "2, 1" in caught.value.remedy
    refused.registry.gone = {"2"}
    with pytest.raises(UserError, match="files of version 2 are gone"):
        by_hand.promote(refused.registry, "2", None)
    del refused.registry.aliases["candidate"]
    with pytest.raises(UserError, match="no candidate yet"):
        by_hand.promote(refused.registry, None, None)
    assert refused.champion() == "1"


def test_taking_back_is_kept_with_the_version_that_was_taken_back(refused: Project) -> None:
    by_hand.promote(refused.registry, None, None)
    made = refused.registry.decisions["1"]
    old, new = by_hand.roll_back(refused.registry, None)
    assert old
    assert (old.number, new.number, refused.champion()) == ("2", "1", "1")
    assert "previous" not in refused.registry.aliases
    taken = refused.registry.decisions["2"]
    assert (taken["promoted"], taken["outcome"]) == (False, "taken back")
    assert taken["reasons"] == ["Taken back by hand; version 1 is the champion again."]
    assert refused.registry.decisions["1"] == made


def test_who_was_taken_back_can_be_put_back_by_hand(refused: Project) -> None:
    by_hand.promote(refused.registry, None, None)
    by_hand.roll_back(refused.registry, None)
    by_hand.promote(refused.registry, "2", None)
    assert refused.champion() == "2"
    assert refused.judge()["outcome"] == "unchanged"
    assert refused.registry.decisions["2"]["outcome"] == "by hand"
