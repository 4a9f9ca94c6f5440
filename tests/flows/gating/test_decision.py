"""The rules of the gate: every outcome, and the floors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from components.ml.statistics.mcnemar import McNemar
from components.params.gate import Floors, Gate
from flows.gating import decision as outcomes
from flows.gating.decision import Challenger, Decision, Evidence, decide
from flows.gating.evidence import Pair

GOOD = Challenger("3", accuracy=0.9, teacher_accuracy=0.92, latency_p50_ms=4.0, megabytes=30.0)
NO_FLOORS = Floors(other_groups=None, retention=None)


def pair(low: float, high: float, p: float = 0.001, groups: Mapping[str, float] | None = None) -> Pair:
    return Pair((low + high) / 2, (low, high), 0.95, McNemar(30, 10, p), 400, 60, groups or {"微博": 0.0})


def judged(found: Pair | None, challenger: Challenger = GOOD, **rules: Any) -> Decision:
    evidence = Evidence(challenger, "products", champion="2" if found else None, pair=found)
    return decide(evidence, Gate(**rules))


@pytest.mark.parametrize(
    ("low", "high", "p", "rules", "outcome", "promoted"),
    [
        (0.001, 0.05, 0.01, {}, outcomes.BETTER, True),
        (0.001, 0.05, 0.08, {}, outcomes.TIE, False),  # the interval alone isn't enough
        (0.0, 0.05, 0.01, {}, outcomes.TIE, False),
        (0.0, 0.0, 1.0, {}, outcomes.TIE, False),
        (-0.02, 0.04, 0.6, {}, outcomes.TIE, False),
        (-0.02, 0.04, 0.6, {"tie": "promote"}, outcomes.TIE, True),
        (-0.05, -0.001, 0.3, {"tie": "promote"}, outcomes.WORSE, False),
        (-0.005, 0.02, 0.6, {"margin": 0.01}, outcomes.NO_WORSE, True),
        (0.0, 0.0, 1.0, {"margin": 0.01}, outcomes.NO_WORSE, True),
        (-0.01, 0.02, 0.6, {"margin": 0.01}, outcomes.TIE, False),
        (-0.03, -0.005, 0.01, {"margin": 0.01, "tie": "promote"}, outcomes.TIE, True),
        (-0.03, -0.011, 0.01, {"margin": 0.01, "tie": "promote"}, outcomes.WORSE, False),
        (0.01, 0.05, 0.01, {"margin": 0.01}, outcomes.BETTER, True),
    ],
)
def test_interval_test_margin_and_tie_decide(
    low: float, high: float, p: float, rules: dict[str, Any], outcome: str, promoted: bool
) -> None:
    found = judged(pair(low, high, p), **rules)
    assert (found.outcome, found.promoted) == (outcome, promoted)
    assert "the champion, version 2: " in found.reasons[0]
    assert f"{100 * low:+.1f} to {100 * high:+.1f} over 60 documents and 400 rows" in found.reasons[0]


def test_a_first_model_needs_the_floors_alone() -> None:
    assert judged(None).promoted
    assert judged(None).outcome == outcomes.FIRST
    poor = dataclasses.replace(GOOD, accuracy=0.8)
    found = judged(None, poor)
    assert (found.promoted, found.outcome) == (False, outcomes.FIRST)
    assert found.reasons[0] == "It keeps 87.0% of the teacher's accuracy; at least 95.0% is asked."


@pytest.mark.parametrize(
    "outcome",
    [outcomes.UNCHANGED, outcomes.TAKEN_BACK, outcomes.OVERRULED, outcomes.OTHER_LABELS, outcomes.NO_FILES],
)
def test_what_was_not_compared_is_not_promoted_however_good_it_is(outcome: str) -> None:
    evidence = Evidence(GOOD, "products", champion="2", obstacle=(outcome, "因此"))
    found = decide(evidence, Gate(tie="promote"))
    assert (found.promoted, found.outcome, found.reasons[0]) == (False, outcome, "因此")


@pytest.mark.parametrize(
    ("floors", "name"),
    [
        ({"retention": 0.979}, "retention"),
        ({"latency_p50_ms": 3.9}, "latency_p50_ms"),
        ({"megabytes": 29.9}, "megabytes"),
        ({"other_groups": 0.0299}, "other_groups"),
    ],
)
def test_who_is_better_but_below_a_floor_is_not_promoted(floors: dict[str, float], name: str) -> None:
    found = judged(
        pair(0.01, 0.05, groups={"微博": -0.03, "b": 0.1}),
        floors=Floors(**{"other_groups": None, "retention": None} | floors),
    )
    assert (found.promoted, found.outcome) == (False, outcomes.BETTER)
    assert [floor.name for floor in found.floors if not floor.met] == [name]
    assert found.reasons[0] == next(floor.said for floor in found.floors if not floor.met)


def test_a_floor_that_is_just_met_is_met() -> None:
    floors = Floors(retention=0.9 / 0.92, latency_p50_ms=4.0, megabytes=30.0, other_groups=0.02)
    found = judged(pair(0.01, 0.05, groups={"微博": 0.93 - 0.95}), floors=floors)
    assert found.promoted
    assert all(floor.met for floor in found.floors)
    assert len(found.floors) == 4


def test_no_floor_is_asked_where_it_is_null() -> None:
    slow = dataclasses.replace(GOOD, accuracy=0.1, latency_p50_ms=None, megabytes=1e6)
    found = judged(pair(0.01, 0.05, groups={"微博": -0.9}), slow, floors=NO_FLOORS)
    assert (found.promoted, found.floors) == (True, [])


def test_a_latency_that_was_not_measured_meets_no_floor() -> None:
    unknown = dataclasses.replace(GOOD, latency_p50_ms=None)
    found = judged(pair(0.01, 0.05), unknown, floors=Floors(latency_p50_ms=100.0))
    assert not found.promoted
    assert "not measured" in found.reasons[0]


def test_the_groups_that_lose_too_much_are_named_the_worst_first_and_not_by_the_hundred() -> None:
    losses = {f"g{number:02}": -number / 100 for number in range(1, 13)}
    found = judged(pair(0.01, 0.05, groups=losses))
    assert "g12 12.0, g11 11.0, g10 10.0, g09 9.0, g08 8.0 and 5 more groups" in found.reasons[0]


def test_another_test_set_is_said_and_changes_no_rule() -> None:
    evidence = Evidence(GOOD, "products", "2", pair(0.01, 0.05), other_test_set=True)
    found = decide(evidence, Gate())
    assert found.promoted
    assert found.reasons[-1].startswith("The test rows are others than those that version 2 was promoted on")
    assert decide(dataclasses.replace(evidence, other_test_set=False), Gate()).reasons == found.reasons[:-1]


def test_points_are_said_in_the_words_of_the_margin() -> None:
    assert "is more than 1 points below the champion" in judged(pair(-0.05, -0.02), margin=0.01).reasons[0]
    assert "is within 1 points of the champion" in judged(pair(-0.005, 0.02), margin=0.01).reasons[0]
    assert "The champion stays (gate.tie)" in judged(pair(-0.02, 0.02)).reasons[0]
    assert "The newer model takes its place (gate.tie)" in judged(pair(-0.02, 0.02), tie="promote").reasons[0]
