"""The gate's verdicts for people and machines: what each rule found, in which split, with examples; no times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from components.validate.rules import Check, Context, bound, rule_settings

if TYPE_CHECKING:
    import pandas as pd

    from components.params import Rule, Rules

EXAMPLES = 10
SHORT = 160  # characters of an example's text


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
        named = ", ".join(["row", *columns])
        query = f"SELECT {named} FROM facts WHERE split = $split AND NOT set_aside ORDER BY row"
        table: pa.Table = self.database.sql(query, params={"split": split}).to_arrow_table()
        found: pd.DataFrame = table.to_pandas(strings_to_categorical=True)
        return found.set_index("row")


def class_counts(database: duckdb.DuckDBPyConnection, split: str) -> list[dict[str, Any]]:
    """Rows and share of every known label in a split, among the rows with a known label."""
    query = """
        SELECT label, count(row) AS rows, count(row) / greatest(sum(count(row)) OVER (), 1) AS share
        FROM labels LEFT JOIN (SELECT * FROM facts WHERE split = $split) USING (label)
        GROUP BY label, index ORDER BY index
    """
    found = database.execute(query, {"split": split}).fetchall()
    return [{"label": label, "rows": rows, "share": float(share)} for label, rows, share in found]


def judge(
    database: duckdb.DuckDBPyConnection, rules: Rules, context: Context, checks: Sequence[Check], results: Sequence[Any]
) -> dict[str, Any]:
    """The verdict on every rule, those that are off included, from the results of its checks.

    Returns:
        ``passed`` (no rule of severity error failed), ``expectations`` (how many were evaluated), ``labels`` and
        ``rules``: a list of rule, severity, passed, bound, observed, checks, findings and examples.
    """
    found = list(zip(checks, results, strict=True))
    verdicts = [
        _verdict(database, name, rule, [pair for pair in found if pair[0].rule == name], context)
        for name, rule in rule_settings(rules).items()
    ]
    return {
        "passed": not failed(verdicts, "error"),
        "expectations": len(checks),
        "labels": list(context.labels),
        "rules": verdicts,
    }


def failed(verdicts: Sequence[Mapping[str, Any]], severity: str) -> list[Mapping[str, Any]]:
    """The rules of a severity that failed."""
    return [verdict for verdict in verdicts if verdict["severity"] == severity and verdict["passed"] is False]


def lines(verdict: Mapping[str, Any]) -> Iterator[str]:
    """What a failed rule found, a line for each split or class, with an example where there is one."""
    for finding in verdict["findings"]:
        examples = [example for example in verdict["examples"] if example["what"] == finding["what"]]
        yield f"{verdict['rule']}: {finding['says']}" + (f", such as {_example(examples[0])}" if examples else "")


def _example(example: Mapping[str, Any]) -> str:
    shown = example["text"] if example["text"] is None else repr(example["text"][:60])
    label = f" (label {example['label']!r})" if example["label"] is not None else ""
    like = example.get("like")
    also = f", like row {like['row']} of {like['file']}" if like else ""
    return f"row {example['row']} of {example['file']}{label}: {shown or 'no text'}{also}"


def _verdict(
    database: duckdb.DuckDBPyConnection, name: str, rule: Rule, found: Sequence[tuple[Check, Any]], context: Context
) -> dict[str, Any]:
    outcomes = [_outcome(check, result) for check, result in found]
    broken = [(check, result) for check, result in found if not result.success]
    shares = [outcome["observed"] for outcome in outcomes if outcome["observed"] is not None]
    lowest = bool(found) and found[0][0].frame == "classes"
    share = max(1, EXAMPLES // max(1, len(broken)))
    return {
        "rule": name,
        "severity": rule.severity,
        "passed": all(result.success for _, result in found) if found else None,
        "bound": bound(rule),
        "observed": (min(shares) if lowest else max(shares)) if shares else None,
        "checks": outcomes,
        "findings": [finding for check, result in broken for finding in _findings(database, rule, check, result)],
        "examples": [
            example
            for check, result in broken
            if check.frame == "rows" and "unexpected_count" in result.result
            for example in _examples(database, check, [int(row) for row in _breaking(result, "row")[:share]], context)
        ][:EXAMPLES],
    }


def _breaking(result: Any, index: str) -> list[Any]:
    """The first rows (by number) or classes (by label) that break a check, from the frame's named index."""
    return [found[index] for found in result.result["partial_unexpected_index_list"]]


def _outcome(check: Check, result: Any) -> dict[str, Any]:
    """How many rows or classes of a split break the rule, of how many, and the share or the least value."""
    found = result.result
    outcome = {"split": check.split, "what": check.what, "passed": bool(result.success)}
    if "unexpected_count" not in found:
        return outcome | {"failing": int(not result.success), "of": 1, "observed": None}
    failing, of = int(found["unexpected_count"]), int(found["element_count"]) - int(found["missing_count"])
    return outcome | {"failing": failing, "of": of, "observed": failing / of if of else 0.0}


def _findings(database: duckdb.DuckDBPyConnection, rule: Rule, check: Check, result: Any) -> Iterator[dict[str, str]]:
    """What a failed check says: a sentence, or for classes one for each."""
    if check.frame == "classes":
        failing = _breaking(result, "label")
        for found in class_counts(database, check.split):
            if found["label"] in failing:
                yield {"what": check.what, "says": _class_sentence(found, rule, check.split)}
    elif "unexpected_count" in result.result:
        outcome = _outcome(check, result)
        allowed = f"at most {bound(rule)['max_share']:.4g} allowed"
        share = f"{outcome['failing']:,} of {outcome['of']:,} ({outcome['observed']:.2%}; {allowed}) "
        yield {"what": check.what, "says": share + check.what}
    else:
        yield {"what": check.what, "says": check.what}


def _class_sentence(found: Mapping[str, Any], rule: Rule, split: str) -> str:
    limits = bound(rule)
    rows = f"{found['rows']:,} row{'' if found['rows'] == 1 else 's'}"
    if "min_rows" in limits:
        return f"the class {found['label']!r} has {rows} in {split}; at least {limits['min_rows']} are needed"
    return (
        f"the class {found['label']!r} has {rows}, {found['share']:.1%} of {split}; "
        f"at least {limits['min_share']:.1%} are expected"
    )


def _examples(
    database: duckdb.DuckDBPyConnection, check: Check, rows: Sequence[int], context: Context
) -> Iterator[dict[str, Any]]:
    """The failing rows of a check with their shortened texts and, if that is the rule, the row each is like."""
    query = """
        SELECT drawn.row, drawn.source, drawn.label, drawn.document, drawn.tokens, measured.text[:$short],
            length(measured.text) > $short, min(other.row), min(other.source)
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
