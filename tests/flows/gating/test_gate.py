"""The gate from the results of a run to the aliases, the tags and the file; each stated outcome."""

from __future__ import annotations

from typing import Any

import pytest

from components.errors import UserError
from components.params.gate import Floors
from flows.gating import by_hand

Project = Any  # tests/flows/gating/conftest.py


def test_the_first_model_becomes_champion_if_it_meets_the_floors(project: Project) -> None:
    project.make("a", skill=100)
    refused = project.judge(floors=Floors(retention=0.95))
    assert (refused["promoted"], refused["outcome"], project.champion()) == (False, "first model", None)
    accepted = project.judge(floors=Floors(retention=0.5))
    assert (accepted["promoted"], accepted["outcome"], project.champion()) == (True, "first model", "1")
    assert (accepted["difference"], accepted["ci"], accepted["champion"]) == (None, None, None)
    assert accepted["floors"]["retention"]["found"] == pytest.approx(0.5 / 0.95)


def test_a_better_one_takes_the_place_and_the_old_one_is_previous(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=130)
    decision = project.judge()
    assert (decision["promoted"], decision["outcome"]) == (True, "better")
    assert decision["difference"] == pytest.approx(30 / 150)
    assert decision["ci"][0] > 0
    assert (decision["group"], decision["rows"], decision["documents"]) == ("products", 150, 75)
    assert decision["mcnemar"]["only_first"] == 30
    assert decision["champion"]["version"] == "1"
    assert decision["challenger"] == {
        **{"model": "lora", "version": "2", "content": "finetune b", "accuracy": 0.65},
        **{"teacher_accuracy": 0.95, "latency_p50_ms": 5.0, "megabytes": 30.0},
    }
    assert project.registry.aliases == {"candidate": "2", "champion": "2", "previous": "1"}
    assert project.registry.decisions["2"] == project.registry.runs["this run"] == decision


def test_a_worse_one_and_a_tie_stay_outside(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=70)
    assert project.judge(tie="promote")["outcome"] == "worse"
    project.make("c", skill=101)
    tie = project.judge()
    assert (tie["promoted"], tie["outcome"]) == (False, "tie")
    assert project.champion() == "1"
    assert project.registry.decisions["3"]["outcome"] == "tie"
    assert project.judge(tie="promote")["promoted"]
    assert project.champion() == "3"


def test_the_groups_and_floors_of_params_yaml_are_those_that_count(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=170, latency=9.0)
    found = project.judge(group="微博", floors=Floors(retention=None, latency_p50_ms=8.0))
    assert (found["group"], found["rows"], found["promoted"]) == ("微博", 50, False)
    assert found["reasons"][0] == "It has a median latency of 9 ms; a median latency of 8 ms is the most it may have."
    assert project.judge(group="letters")["outcome"] == "no test rows"
    assert project.champion() == "1"


def test_the_same_content_stays_champion_and_keeps_the_decision_that_made_it(champion_of_100: Project) -> None:
    project = champion_of_100
    made = project.registry.decisions["1"]
    (project.root / "reports/decision.json").unlink()
    assert project.judge() == made  # the same results by the same rules
    changed = project.judge(margin=0.01)
    assert (changed["promoted"], changed["outcome"], project.champion()) == (False, "unchanged", "1")
    assert project.registry.decisions["1"] == made
    assert project.registry.runs["this run"] == changed
    assert project.registry.scored == 0


def test_the_champion_is_scored_once_for_each_test_set(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=70)
    same = project.judge()
    project.judge(tie="promote")
    assert project.registry.scored == 200
    assert not same["test_set_changed"]
    project.test = "rows-2"
    project.make("b", skill=70)
    other = project.judge()
    assert project.registry.scored == 400
    assert other["test_set_changed"]
    assert "The test rows are others than those that version 1 was promoted on" in other["reasons"][-1]


def test_other_labels_are_not_compared(champion_of_100: Project) -> None:
    project = champion_of_100
    project.registry.labels = ["bad", "good"]
    project.make("b", skill=200)
    decision = project.judge(tie="promote")
    assert (decision["promoted"], decision["outcome"], project.champion()) == (False, "other labels", "1")
    assert "knows the labels bad, good, the new model negative, positive" in decision["reasons"][0]
    assert "`stillhouse promote 2`" in decision["reasons"][0]


def test_a_champion_without_files_is_said_with_what_to_do_even_where_it_was_scored_before(
    champion_of_100: Project,
) -> None:
    project = champion_of_100
    project.make("b", skill=70)
    project.judge()
    project.registry.gone = {"1"}
    project.make("c", skill=200)
    decision = project.judge()
    assert (decision["promoted"], decision["outcome"], project.champion()) == (False, "champion missing", "1")
    assert "The files of version 1 are gone. Put them back." in decision["reasons"][0]
    assert "`stillhouse promote 3`" in decision["reasons"][0]


def test_a_version_whose_own_files_are_gone_is_neither_promoted_nor_called_unchanged(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=150)
    project.registry.gone = {"2"}
    decision = project.judge()
    assert (decision["promoted"], decision["outcome"], project.champion()) == (False, "files missing", "1")
    project.registry.gone = {"1"}
    project.make("a", skill=100)
    assert project.judge()["outcome"] == "champion missing"


def test_a_server_that_is_away_decides_nothing(champion_of_100: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project = champion_of_100
    project.make("b", skill=200)

    def away(*_: Any) -> None:
        raise UserError("MLflow is away.", "", "tracking")

    monkeypatch.setattr(project.registry, "check_files", away)
    before = (project.root / "reports/decision.json").read_bytes()
    with pytest.raises(UserError, match="away"):
        project.judge()
    assert (project.root / "reports/decision.json").read_bytes() == before
    assert "2" not in project.registry.decisions


def test_a_promotion_cut_short_is_completed_with_the_same_reasons(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=150)
    project.registry.faults = [UserError("MLflow is away.", "", "tracking")]
    with pytest.raises(UserError):
        project.judge()
    assert project.champion() == "1"
    assert project.judge()["outcome"] == "better"
    assert project.registry.aliases == {"candidate": "2", "champion": "2", "previous": "1"}


def test_what_was_taken_back_by_hand_is_not_promoted_again(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=150)
    project.judge()
    by_hand.roll_back(project.registry, "客户")
    decision = project.judge()
    assert (decision["promoted"], decision["outcome"], project.champion()) == (False, "taken back", "1")
    assert "客户" in project.registry.decisions["2"]["reasons"][0]
    project.make("c", skill=149)
    assert project.judge()["promoted"]


def test_a_model_that_is_not_registered_is_published_again_first(champion_of_100: Project) -> None:
    project = champion_of_100
    project.make("b", skill=150)
    del project.registry.contents["2"]
    with pytest.raises(UserError, match="holds the model 'lora'") as caught:
        project.judge()
    assert caught.value.kind == "tracking"
