"""Which checks each rule becomes."""

from __future__ import annotations

from typing import Any

from components.params.data import Data, Rules
from components.validate.rules import Check, Context, build_checks, rule_settings

DEFAULTS = Rules.model_validate({})
ALL = ["train", "validation", "test", "unlabelled"]


def checks(document: str | None = "document", rules: Any = None, pair: str | None = None) -> list[Check]:
    columns = {"text": "text", "text_pair": pair, "label": "label", "document": document}
    data = Data.model_validate({"train": "data/train.csv", "columns": columns, "max_length": 32})
    context = Context(data, ["差", "好"], ALL, {"train": ["text", "label", "document"]})
    return build_checks(Rules.model_validate(rules or {}), context)


def of(found: list[Check], rule: str) -> list[Check]:
    return [check for check in found if check.rule == rule]


def test_every_rule_becomes_checks_in_its_order() -> None:
    names = list(rule_settings(DEFAULTS))
    assert list(dict.fromkeys(check.rule for check in checks(pair="hypothesis"))) == names
    assert list(dict.fromkeys(check.rule for check in checks())) == [name for name in names if name != "shared_texts"]
    assert names[0] == "schema"


def test_a_rule_that_is_off_becomes_no_check() -> None:
    off = {name: rule.model_dump() | {"severity": "off"} for name, rule in rule_settings(DEFAULTS).items()}
    assert checks(rules=off) == []


def test_the_pool_is_not_asked_for_labels() -> None:
    for rule in ("missing_label", "known_label", "conflicting_labels", "rows_per_class"):
        assert [check.split for check in of(checks(), rule)] == ["train", "validation", "test"]
    assert [check.split for check in of(checks(), "class_balance")] == ["train"]
    assert [check.split for check in of(checks(), "blank_text")] == ALL


def test_held_out_splits_are_checked_against_all_that_comes_before() -> None:
    pairs = [(check.split, check.arguments["column"]) for check in of(checks(), "leakage")]
    assert pairs == [
        ("train", "stands_in_test"),
        ("validation", "stands_in_test"),
        ("unlabelled", "stands_in_test"),
        ("train", "stands_in_validation"),
        ("unlabelled", "stands_in_validation"),
    ]


def test_documents_are_compared_only_where_they_are_named() -> None:
    assert len(of(checks(), "shared_documents")) == 5
    assert of(checks(document=None), "shared_documents") == []


def test_a_share_at_its_very_bound_is_allowed() -> None:
    for percent in range(101):
        rules = {"duplicates": {"severity": "error", "max_share": percent / 100}}
        (check, *_) = of(checks(rules=rules), "duplicates")
        assert (100 - percent) / 100 >= check.arguments["mostly"]
