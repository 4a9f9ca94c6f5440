"""The gate's verdicts for people and machines: what each rule found, in which split, with examples; no times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from components.validate.classes import class_counts, unknown_names
from components.validate.database import shown
from components.validate.faults import faults_of
from components.validate.messages import class_sentence, classes_sentence, share_sentence
from components.validate.rules import Check, Context, Outcome, bound, rule_settings

if TYPE_CHECKING:
    import pandas as pd

    from components.params.data import Rule, Rules

EXAMPLES = 10
SHORT = 160  # characters of an example's text


_NULLABLE = {"unknown_label": "CASE WHEN label IS NOT NULL THEN unknown_label END AS unknown_label"}
"""Facts that say nothing of rows without a label."""


class Frames:
    """Data frames over the facts for the gate; no texts, strings as categories."""

    def __init__(self, database: duckdb.DuckDBPyConnection, context: Context) -> None:
        self.database = database
        self.context = context

    def __call__(self, frame: str, split: str, columns: Sequence[str]) -> pd.DataFrame:
        """The frame of a kind (``rows`` by row number, ``classes`` by label, ``columns`` without rows)."""
        import pandas as pd

        if frame == "columns":
            return pd.DataFrame(columns=list(self.context.columns[split]))
        if frame == "classes":
            return pd.DataFrame(class_counts(self.database, split)).set_index("label")
        named = ", ".join(["row", *(_NULLABLE.get(column, column) for column in columns)])
        query = f"SELECT {named} FROM facts WHERE split = $split AND NOT set_aside ORDER BY row"
        table: pa.Table = self.database.sql(query, params={"split": split}).to_arrow_table()
        found: pd.DataFrame = table.to_pandas(strings_to_categorical=True)
        return found.set_index("row")


def judge(
    database: duckdb.DuckDBPyConnection,
    rules: Rules,
    context: Context,
    checks: Sequence[Check],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """The verdict on every rule, those that are off included, from the outcomes of its checks.

    Returns:
        ``passed`` (no rule of severity error failed), ``expectations`` (how many were evaluated), ``labels``,
        ``target`` (the role of what is to be predicted) and ``rules``: a list of rule, severity, passed (null if
        nothing was checked), bound, observed (the worst), checks, findings and examples.
    """
    pairs = list(zip(checks, outcomes, strict=True))
    verdicts = [
        _verdict(database, name, rule, [pair for pair in pairs if pair[0].rule == name], context)
        for name, rule in rule_settings(rules).items()
    ]
    return {
        "passed": not any(found["severity"] == "error" and found["passed"] is False for found in verdicts),
        "expectations": len(checks),
        "labels": list(context.labels),
        "target": context.data.kind.target,
        "rules": verdicts,
    }


_CLASSES_ONE_BY_ONE = 3
"""Of more classes that are too small, one sentence tells."""
_Pairs = Sequence[tuple[Check, Outcome]]


def _verdict(
    database: duckdb.DuckDBPyConnection, name: str, rule: Rule, pairs: _Pairs, context: Context
) -> dict[str, Any]:
    observed = [value for check, outcome in pairs if (value := _observed(database, check, outcome)) is not None]
    broken = [(check, outcome) for check, outcome in pairs if not outcome.passed]
    worst = min if name in ("rows_per_class", "class_balance") else max
    return {
        "rule": name,
        "severity": rule.severity,
        "passed": not broken if pairs else None,
        "bound": bound(rule),
        "observed": worst(observed) if observed else None,
        "checks": [
            {
                "split": check.split,
                "what": check.what,
                "passed": outcome.passed,
                "failing": outcome.failing,
                "of": outcome.of,
                "observed": _observed(database, check, outcome),
            }
            for check, outcome in pairs
        ],
        "findings": [
            finding for check, outcome in broken for finding in _findings(database, rule, check, outcome, context)
        ],
        "examples": _shared_out(database, broken, context),
    }


def _observed(database: duckdb.DuckDBPyConnection, check: Check, outcome: Outcome) -> float | None:
    """The share of rows that break the rule, the least rows or share of a class, or nothing for a whole file."""
    if check.frame == "classes":
        return float(min(found[check.arguments["column"]] for found in class_counts(database, check.split)))
    if "column" not in check.arguments:
        return None
    return outcome.failing / outcome.of if outcome.of else 0.0


def _findings(
    database: duckdb.DuckDBPyConnection, rule: Rule, check: Check, outcome: Outcome, context: Context
) -> Iterator[dict[str, str]]:
    """What a failed check says: a sentence, or for classes and faults one for each."""
    if check.rule == "sound_rows":
        yield from _faults(database, check, context)
    elif check.frame == "classes":
        small = [found for found in class_counts(database, check.split) if found["label"] in outcome.breaking]
        said = (
            [class_sentence(found, bound(rule), check.split) for found in small]
            if outcome.failing <= _CLASSES_ONE_BY_ONE
            else [classes_sentence(check, outcome, small)]
        )
        yield from ({"what": check.what, "says": sentence} for sentence in said)
    elif "column" in check.arguments:
        named = _named(database, check)
        yield {"what": check.what, "says": share_sentence(check, outcome, bound(rule)["max_share"], named)}
    else:
        yield {"what": check.what, "says": check.what}


def _named(database: duckdb.DuckDBPyConnection, check: Check) -> dict[str, int]:
    """What a sentence names of the rows that break a rule: unknown labels or other scripts, with their rows."""
    if check.rule == "known_label":
        return unknown_names(database, check.split)
    if check.rule != "language_mix":
        return {}
    query = """SELECT script, count(*) AS n FROM facts WHERE split = $split AND other_script AND NOT set_aside
               GROUP BY script ORDER BY n DESC, script LIMIT 5"""
    return dict(database.execute(query, {"split": check.split}).fetchall())


def _faults(database: duckdb.DuckDBPyConnection, check: Check, context: Context) -> Iterator[dict[str, str]]:
    """Each kind of fault with the rows that have it, and where they stand."""
    for what, rows, examples in faults_of(database, "drawn", "split", check.split):
        shown = ", ".join(
            f"row {row} of {context.data.files[source]}" + (f" ({detail})" if detail else "")
            for row, source, detail in examples
        )
        count = f"{rows:,} row{'s' * (rows > 1)} of {check.split}"
        yield {"what": f"{check.what}: {what}", "says": f"{count} {what}: {shown}{', ...' * (rows > len(examples))}"}


def _shared_out(database: duckdb.DuckDBPyConnection, broken: _Pairs, context: Context) -> list[dict[str, Any]]:
    """At most ten examples, an equal part of them from each failed check of rows."""
    broken = [(check, outcome) for check, outcome in broken if check.frame == "rows" and outcome.breaking]
    each = max(1, EXAMPLES // max(1, len(broken)))
    examples: list[dict[str, Any]] = []
    for check, outcome in broken:
        examples += _examples(database, check, outcome.breaking[:each], context)
    return examples[:EXAMPLES]


def _examples(
    database: duckdb.DuckDBPyConnection, check: Check, rows: Sequence[int], context: Context
) -> Iterator[dict[str, Any]]:
    """The failing rows of a check with their shortened texts and, if that is the rule, the row each is like."""
    text = shown("measured")
    query = f"""
        SELECT drawn.row, drawn.source, drawn.label[:$short], drawn.document, drawn.tokens, {text}[:$short],
            length({text}) > $short, min(other.row), min(other.source)
        FROM drawn JOIN measured USING (source, row)
        LEFT JOIN drawn AS other ON other.same_form = drawn.same_form AND other.split = $near
            AND (other.split <> drawn.split OR other.row <> drawn.row)
            AND ($rule <> 'conflicting_labels' OR other.label <> drawn.label)
        WHERE drawn.split = $split AND list_contains($rows, drawn.row)
        GROUP BY ALL ORDER BY drawn.row
    """
    values = {"split": check.split, "rows": list(rows), "near": check.near, "rule": check.rule, "short": SHORT}
    for row, source, label, document, tokens, text, cut, like, of in database.execute(query, values).fetchall():
        example = {
            "what": check.what, "split": check.split, "file": context.data.files[source], "row": row,
            "text": f"{text}…" if cut else text, "label": label, "document": document, "tokens": tokens,
        }  # fmt: skip
        if like is not None:
            example["like"] = {"file": context.data.files[of], "row": like}
        yield example
