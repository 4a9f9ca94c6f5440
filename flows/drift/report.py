"""reports/monitoring.json: what was found, and the same for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.markup import markdown as escaped

REPORT = Path("reports/monitoring.json")
NOTHING, OTHER_MODEL, TOO_FEW, STEADY, DRIFT = "nothing logged", "other model", "too few rows", "no drift", "drift"
UNTESTED = "not tested"


def write(root: Path, report: Mapping[str, Any]) -> None:
    """Never half of it, whatever dies."""
    path = root / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.partial")
    draft.write_text(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def drifted(report: Mapping[str, Any]) -> list[str]:
    """The names of the tests that show drift."""
    return [test["name"] for test in report.get("tests", []) if test["drifted"]]


def headline(report: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    model = f"{report['model']['name']}/{report['model']['version']}"
    rows, least = f"{report['rows']:,}", report["rules"]["min_rows"]
    since = _since(report)
    return {
        NOTHING: f"Nothing was logged since {since}.",
        OTHER_MODEL: f"No row of {model} was logged since {since}, only rows of other models.",
        TOO_FEW: f"Too few rows: {rows} of {model} since {since}; tests start at {least:,}.",
        UNTESTED: f"Not tested: {rows} rows of {model} since {since}, and no test that could be made of them.",
        STEADY: f"No drift: {rows} rows of {model} since {since} look like its training.",
        DRIFT: f"Drift of {', '.join(drifted(report))}: {rows} rows of {model} since {since}.",
    }[report["outcome"]]


def _since(report: Mapping[str, Any]) -> str:
    return f"{report['since'][:16].replace('T', ' ')} UTC"


def sentences(report: Mapping[str, Any], *, words: bool = True) -> list[str]:
    """What there is to say beside the headline and the table.

    Args:
        report: what was found.
        words: whether words and texts of the log may be shown: texts may be private, and a message goes far.
    """
    shown = [*_of_labels(report, words), *(_of_words(report) if words else [])]
    return [*_of_others(report), *shown, *report["notes"], *_of_training(report)]


def _of_others(report: Mapping[str, Any]) -> list[str]:
    others = [f"{rows:,} of {name}" for name, rows in report["other_models"].items()]
    return [f"Left out, as they are of other models: {', '.join(others)}."] if others else []


def _of_labels(report: Mapping[str, Any], words: bool) -> list[str]:
    found = report["labels"]
    if found is None:
        return []
    told = _of_accuracy(report) if found["rows"] else ["No label in the file belongs to a row that was looked at."]
    outside = f"in no row of this model since {_since(report)} (--since looks further back)"
    for name, why in (("unmatched", outside), ("conflicting", "with several labels, left out")):
        if found[name]:
            examples = found["examples"][name] if words else []
            more = " and others" if found[name] > len(examples) else ""
            named = f": {', '.join(examples)}{more}" if examples else ""
            key = found["key"] if found[name] == 1 else f"{found['key']}s"
            told.append(f"{found[name]:,} {key} {why}{named}.")
    if found["unknown"]:
        told.append(f"{found['unknown']:,} rows have a label that the model never gives; they count as wrong.")
    return told


def _of_accuracy(report: Mapping[str, Any]) -> list[str]:
    """How often the model was right, and why that isn't tested."""
    found, rules = report["labels"], report["rules"]
    low, high = found["ci"]
    before = "" if found["reference"] is None else f"; on the test rows {found['reference']:.1%}"
    interval = f"{low:.1%} to {high:.1%} with {found['confidence']:.0%} confidence"
    told = f"Accuracy {found['accuracy']:.1%} ({interval}) on {found['rows']:,} rows whose labels came{before}."
    if found["tested"]:
        return [told]
    if rules["thresholds"]["accuracy"] is None:
        why = "monitoring.thresholds.accuracy is null"
    elif found["rows"] < rules["min_labels"]:
        why = f"that starts at {rules['min_labels']:,} rows with labels"
    else:
        why = "there is none on the test rows to compare it with"
    return [told, f"Accuracy isn't tested: {why}."]


def _of_words(report: Mapping[str, Any]) -> list[str]:
    for test in report["tests"]:
        if test["name"] == "word frequencies" and test["drifted"]:
            told = [("More", test["incoming"]["more here"]), ("less", test["reference"]["more here"])]
            return ["; ".join(f"{how} often: {', '.join(words)}" for how, words in told if words) + "."]
    return []


def _of_training(report: Mapping[str, Any]) -> list[str]:
    found = report["retraining"]
    if found is None:
        return []
    if found["problem"]:
        return [f"Training was not started: {found['problem']}"]
    if not found["new"]:
        return [f"Training was started for this model and these data before: {found['run']}."]
    again = f" again, as {found['failed']:,} before came to nothing" if found["failed"] else ""
    return [f"Training was started{again}: {found['run']} of the deployment {found['deployment']}."]


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The tests as a table: name, expected, incoming, effect, threshold, corrected p, verdict."""
    return [
        [
            test["name"],
            _side(test["reference"]),
            _side(test["incoming"]),
            f"{test['effect']:.3f} {test['kind']}",
            f"{test['threshold']:g}",
            f"{test['p_adjusted']:.2g}",
            "drift" if test["drifted"] else "-",
        ]
        for test in report["tests"]
    ]


HEADER = ("test", "expected", "incoming", "effect", "from", "p", "verdict")


def _side(told: Mapping[str, Any]) -> str:
    """The two or three numbers that describe a side; words are told below the table."""
    numbers = {name: value for name, value in told.items() if name != "rows" and isinstance(value, (int, float))}
    if set(numbers) == {"median", "p95"}:
        return f"{numbers['median']:g}, 95% to {numbers['p95']:g}"
    if set(numbers) <= {"mean", "accuracy"}:
        return ", ".join(f"{value:.1%}" for value in numbers.values())
    largest = sorted(numbers.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{name} {value:.0%}" for name, value in largest)


def markdown(report: Mapping[str, Any]) -> str:
    """The report for an artifact that people read in a browser; without words of the texts."""
    lines = [f"**{escaped(headline(report))}**", ""]
    if report["tests"]:
        lines += [f"| {' | '.join(HEADER)} |", "|" + " --- |" * len(HEADER)]
        lines += [f"| {' | '.join(escaped(cell) for cell in line)} |" for line in rows(report)]
        lines.append("")
    return "\n".join([*lines, *(f"- {escaped(sentence)}" for sentence in sentences(report, words=False))])
