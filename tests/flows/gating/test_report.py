"""reports/decision.json: about which results it is, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.params.gate import Gate
from flows.gating import report

DECISION: dict[str, Any] = {
    **{"promoted": False, "outcome": "tie", "reasons": ["甲.", "乙."], "registered_model": "小模型"},
    **{"challenger": {"version": "3"}, "champion": {"version": "2"}, "lock": "a", "rules": Gate().model_dump()},
    "floors": {
        "retention": {"asked": 0.95, "found": 0.97, "met": True},
        "latency": {"asked": 1, "found": None, "met": False},
    },
}


def test_a_decision_is_about_these_results_by_these_rules(tmp_path: Path) -> None:
    assert not report.current(tmp_path, "a", Gate())
    report.write(tmp_path, DECISION)
    assert report.current(tmp_path, "a", Gate())
    assert not report.current(tmp_path, "b", Gate())
    assert not report.current(tmp_path, "a", Gate(margin=0.01))
    assert not report.current(tmp_path, "a", Gate.model_validate({"floors": {"megabytes": 3.0}}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_half_a_decision_is_none(tmp_path: Path, text: str) -> None:
    report.write(tmp_path, DECISION)
    (tmp_path / report.DECISION).write_text(text)
    assert report.read(tmp_path) is None
    assert not report.current(tmp_path, "a", Gate())


@pytest.mark.parametrize(
    ("changed", "headline"),
    [
        ({}, "version 3 not promoted (tie)"),
        ({"promoted": True}, "promoted: version 3 is the champion"),
        ({"outcome": "unchanged", "champion": {"version": "3"}}, "version 3 stays the champion"),
        ({"outcome": "first model", "champion": None}, "version 3 not promoted (first model)"),
    ],
)
def test_the_headline_says_what_became_of_it(changed: dict[str, Any], headline: str) -> None:
    assert report.headline(DECISION | changed) == headline


def test_people_read_the_reasons_and_the_floors() -> None:
    lines = report.markdown(DECISION).splitlines()
    assert lines[:4] == ["**小模型: Version 3 not promoted (tie).**", "", "- 甲.", "- 乙."]
    assert lines[-2:] == ["| retention | 0.95 | 0.97 | yes |", "| latency | 1 | - | no |"]
