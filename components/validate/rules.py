"""The data gate's rules as checks of one split each, in the terms of Great Expectations, without importing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from components.params.columns import ABOUT
from components.params.data import BalanceRule, Data, RowsRule, Rule, Rules, Severity, ShareRule
from components.validate.tables import reads_pairs

LABELLED = ("train", "validation", "test")
Frame = Literal["rows", "classes", "columns"]
_Builder = Callable[..., Iterator["Check"]]


@dataclass(frozen=True)
class Check:
    """One expectation about one split.

    ``frame`` says what it looks at: ``rows`` (of the facts table), ``classes`` (label, rows, share)
    or ``columns`` (those of the split's file, no rows). ``what`` names the rows or classes that break the
    rule; ``near`` is the split where a row's like is to be looked for, if the rule is about likeness.
    """

    rule: str
    severity: Severity
    split: str
    frame: Frame
    expectation: str
    arguments: Mapping[str, Any]
    what: str
    near: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a check: how many rows or classes break it, of how many, and the first ten of them.

    ``breaking`` holds row numbers or labels. A check of a whole file counts as one.
    """

    passed: bool
    failing: int
    of: int
    breaking: Sequence[Any] = ()


@dataclass(frozen=True)
class Context:
    """What the checks depend on besides the rules: the splits there are and how to read them."""

    data: Data
    labels: Sequence[str]  # that targets may name
    splits: Sequence[str]
    columns: Mapping[str, Sequence[str]]  # of each file, by the split it was given for

    @property
    def labelled(self) -> list[str]:
        """The labelled splits."""
        return [split for split in self.splits if split in LABELLED]


def rule_settings(rules: Rules) -> dict[str, Rule]:
    """The rules by their names in params.yaml, in its order."""
    return {info.alias or name: getattr(rules, name) for name, info in Rules.model_fields.items()}


def bound(rule: Rule) -> dict[str, float]:
    """The rule's bound by its name in params.yaml; empty if it has none."""
    return {name: value for name, value in rule.model_dump().items() if name != "severity"}


def build_checks(rules: Rules, context: Context) -> list[Check]:
    """Every check of every rule that isn't off, in the order of the rules."""
    checks: list[Check] = []
    for name, rule in rule_settings(rules).items():
        if rule.severity != "off":
            checks += _BUILDERS[name](name, rule, context)
    return checks


def _schema(name: str, rule: Rule, context: Context) -> Iterator[Check]:
    named, task = context.data.columns, context.data.kind
    read = [role for role in (*task.columns, *task.optional) if role != task.target]
    for split, columns in context.columns.items():
        needed = read if split == "unlabelled" else [*read, task.target, *ABOUT]
        wanted = [column for role in needed if (column := named.of(role))]
        arguments = {"column_set": wanted, "exact_match": False}
        what = f"the file of {split} lacks a column (it has {', '.join(columns)})"
        yield Check(name, rule.severity, split, "columns", "expect_table_columns_to_match_set", arguments, what)
    for split in context.labelled:
        what = f"{split} has no rows"
        yield Check(name, rule.severity, split, "rows", "expect_table_row_count_to_be_between", {"min_value": 1}, what)


def _flag(column: str, what: str, labelled: bool = False, near: bool = False) -> _Builder:
    """A builder of checks that a yes-or-no fact of a row is mostly "no"; ``near`` if it is about two rows alike.

    ``what`` may speak of ``{a_target}`` or ``{another_target}``.
    """

    def build(name: str, rule: Rule, context: Context) -> Iterator[Check]:
        told = what.format_map(_articles(context.data.kind.target))
        for split in context.labelled if labelled else context.splits:
            yield _flag_check(name, rule, split, column, f"rows of {split} {told}", split if near else None)

    return build


def _articles(target: str) -> dict[str, str]:
    """A label and another label; or tags and other tags."""
    if target.endswith("s"):
        return {"a_target": target, "another_target": f"other {target}"}
    return {"a_target": f"a {target}", "another_target": f"another {target}"}


def _across(fact: str, what: str) -> _Builder:
    """A builder of checks that no row shares something with a split held out from it."""

    def build(name: str, rule: Rule, context: Context) -> Iterator[Check]:
        needed = {"document": context.data.columns.document is not None, "text": reads_pairs(context.data)}
        if not needed.get(fact, True):
            return
        for held_out in ("test", "validation"):
            kept_apart = {"test", held_out}  # validation against test is enough: the other way round is the same
            for split in context.splits:
                if split not in kept_apart:
                    near = held_out if fact == "stands" else None
                    yield _flag_check(
                        name, rule, split, f"{fact}_in_{held_out}", f"rows of {split} {what} {held_out}", near
                    )

    return build


def _flag_check(name: str, rule: Rule, split: str, column: str, what: str, near: str | None) -> Check:
    arguments = {"column": column, "value_set": [False], "mostly": _mostly(rule)}
    return Check(name, rule.severity, split, "rows", "expect_column_values_to_be_in_set", arguments, what, near)


def _known_label(name: str, rule: Rule, context: Context) -> Iterator[Check]:
    listed = ", ".join(map(repr, context.labels[:10])) + (" ..." if len(context.labels) > 10 else "")
    for split in context.labelled if context.labels else ():
        yield _flag_check(name, rule, split, "unknown_label", f"rows of {split} with a label other than {listed}", None)


def _language_mix(name: str, rule: Rule, context: Context) -> Iterator[Check]:
    for split in context.splits:
        if split != "train":
            what = f"rows of {split} mainly written in a script that fewer than 1% of the training rows are written in"
            yield _flag_check(name, rule, split, "other_script", what, None)


def _truncated(name: str, rule: Rule, context: Context) -> Iterator[Check]:
    for split in context.splits if context.data.windows.stride is None else ():
        arguments = {"column": "tokens", "max_value": context.data.max_length, "mostly": _mostly(rule)}
        what = f"rows of {split} longer than {context.data.max_length} tokens"
        yield Check(name, rule.severity, split, "rows", "expect_column_values_to_be_between", arguments, what)


def _rows_per_class(name: str, rule: RowsRule, context: Context) -> Iterator[Check]:
    for split in context.labelled if context.data.kind.rows_by_class else ():
        arguments = {"column": "rows", "min_value": rule.min_rows}
        what = f"classes of {split} with fewer than {rule.min_rows} rows"
        yield Check(name, rule.severity, split, "classes", "expect_column_values_to_be_between", arguments, what)


def _class_balance(name: str, rule: BalanceRule, context: Context) -> Iterator[Check]:
    if not context.data.kind.rows_by_class:
        return
    arguments = {"column": "share", "min_value": rule.min_share}
    what = f"classes of train with less than {rule.min_share:.3g} of the rows"
    yield Check(name, rule.severity, "train", "classes", "expect_column_values_to_be_between", arguments, what)


def _mostly(rule: Rule) -> float:
    """The share that must keep the rule; rounded, so that a share at the very bound passes."""
    assert isinstance(rule, ShareRule)
    return round(1 - rule.max_share, 12)


_BUILDERS: dict[str, _Builder] = {
    "schema": _schema,
    "missing_text": _flag("missing_text", "without a text"),
    "missing_label": _flag("missing_label", "without {a_target}", labelled=True),
    "blank_text": _flag("blank", "whose text is blank"),
    "known_label": _known_label,
    "sound_rows": _flag("faulty", "that can't be used"),
    "encoding": _flag("damaged", "with marks of a wrong decoding"),
    "language_mix": _language_mix,
    "truncated": _truncated,
    "duplicates": _flag("duplicate", "that repeat an earlier text", near=True),
    "conflicting_labels": _flag(
        "conflicting", "whose text also stands there with {another_target}", labelled=True, near=True
    ),
    "leakage": _across("stands", "whose text also stands in"),
    "shared_texts": _across("text", "one of whose texts also stands in a pair of"),
    "shared_documents": _across("document", "whose document also has rows in"),
    "rows_per_class": _rows_per_class,
    "class_balance": _class_balance,
}
