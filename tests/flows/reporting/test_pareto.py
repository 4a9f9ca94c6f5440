"""Which models are on the front, and that names beside points keep clear of each other."""

from __future__ import annotations

import itertools
import math

import pytest

from flows.reporting.pareto import TICKS, _apart, _round_numbers, front


def model(accuracy: float, megabytes: float | None) -> dict[str, float | None]:
    return {"accuracy": accuracy, "megabytes": megabytes}


def test_on_the_front_is_what_no_other_beats_in_both() -> None:
    models = {
        "large": model(0.9, 80.0),
        "worse and larger": model(0.85, 90.0),
        "small": model(0.8, 10.0),
        "as small and worse": model(0.7, 10.0),
        "as good as small and larger": model(0.8, 20.0),
        "unknown": model(0.99, None),
    }
    assert front(models, "megabytes") == ["small", "large"]


def test_names_have_room_and_stay_in_the_figure() -> None:
    wanted = {"a": 1.0, "b": 1.01, "c": 1.02, "d": 2.6, "e": 0.0}
    rooms = dict.fromkeys(wanted, 0.3) | {"b": 0.5}
    found = _apart(wanted, rooms, 2.75)
    placed = sorted(found, key=lambda name: found[name])
    assert placed == ["e", "a", "b", "c", "d"]
    for low, high in itertools.pairwise(placed):
        assert found[high] - found[low] >= (rooms[low] + rooms[high]) / 2 - 1e-9
    assert found["e"] >= 0.15
    assert found["d"] <= 2.6


@pytest.mark.parametrize(("low", "high"), [(0.037, 0.185), (0.4, 270.0), (13.0, 122.0), (0.66, 0.75), (3.0, 4e6)])
def test_the_numbers_of_an_axis_have_room(low: float, high: float) -> None:
    found = _round_numbers(low, high)
    assert 1 <= len(found) <= TICKS + 1
    assert low <= found[0] < found[-1] <= high or len(found) == 1
    for number, following in itertools.pairwise(found):
        assert math.log(following / number) >= math.log(high / low) / TICKS - 1e-9
