"""The grid: how values are read, what is refused, what identifies a sweep."""

from __future__ import annotations

import pytest

from components.errors import UserError
from flows.sweeping.grid import combinations, digest, parse, split


def test_values_stand_between_commas_and_brackets_hold_one_together() -> None:
    assert parse(["distill.temperature=1,2.5", "distill.student.layers=2,[0,2]", "distill.student.take=lower"]) == {
        "distill.temperature": [1, 2.5],
        "distill.student.layers": [2, [0, 2]],
        "distill.student.take": ["lower"],
    }
    assert split("{a: 1, b: [1,2]},'x, y', z") == ["{a: 1, b: [1,2]}", "'x, y'", "z"]


def test_numbers_are_read_as_params_yaml_has_them() -> None:
    assert parse(["teacher.phases.general.lr=1e-4,null"]) == {"teacher.phases.general.lr": [1e-4, None]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "at least one KEY=VALUE"),
        (["distill.temperature"], "expected KEY=VALUE"),
        (["distill.temperature="], "expected KEY=VALUE"),
        (["distill.temperature=1,,2"], "expected KEY=VALUE"),
        (["=1"], "KEY"),
        (["distill.temperature=2,2"], "2 stands twice"),
        (["distill.temperature=1", "distill.temperature=2"], "twice"),
        (["distill=1", "distill.temperature=2"], "distill"),
        (["distill.temperature=[1,2"], "YAML"),
    ],
)
def test_what_is_no_grid_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        parse(arguments)
    assert caught.value.kind == "parameters"


def test_every_combination_is_there_once_and_the_last_key_varies_fastest() -> None:
    found = combinations(parse(["a.b=1,2", "c.d=[0,2],x"]))
    assert [combination.label for combination in found] == [
        "a.b=1 c.d=[0, 2]",
        "a.b=1 c.d=x",
        "a.b=2 c.d=[0, 2]",
        "a.b=2 c.d=x",
    ]
    assert [combination.number for combination in found] == [1, 2, 3, 4]


def test_a_sweep_is_the_same_in_whatever_order_its_keys_stand_but_not_on_other_inputs() -> None:
    one, other = parse(["a=1,2", "b=3"]), parse(["b=3", "a=1,2"])
    assert digest(one, "inputs") == digest(other, "inputs")
    assert digest(one, "inputs") != digest(one, "other inputs")
    assert digest(one, "inputs") != digest(parse(["a=1,3", "b=3"]), "inputs")
