"""reports/monitoring.json: what was found, and the same for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPORT = Path("reports/monitoring.json")
NOTHING, OTHER_MODEL, TOO_FEW, STEADY, DRIFT = "nothing logged", "other model", "too few rows", "no drift", "drift"


def read(root: Path) -> dict[str, Any]:
    """The last report; nothing where there is none, or half of one."""
    try:
        found = json.loads((root / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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


def same_drift(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two reports tell the same drift of the same model."""
    return one.get("model") == other.get("model") and drifted(one) == drifted(other) != []


def headline(report: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    model = f"{report['model']['name']}/{report['model']['version']}"
    rows, least = f"{report['rows']:,}", report["rules"]["min_rows"]
    since = report["since"][:16].replace("T", " ")
    return {
        NOTHING: f"Nothing was logged since {since} UTC.",
        OTHER_MODEL: f"No row of {model} was logged since {since} UTC, only rows of other models.",
        TOO_FEW: f"Too few rows: {rows} of {model} since {since} UTC; tests start at {least:,}.",
        STEADY: f"No drift: {rows} rows of {model} since {since} UTC look like its training.",
        DRIFT: f"Drift of {', '.join(drifted(report))}: {rows} rows of {model} since {since} UTC.",
    }[report["outcome"]]


def sentences(report: Mapping[str, Any]) -> list[str]:
    """What there is to say beside the headline and the table."""
    return [*_of_others(report), *_of_labels(report), *_of_words(report), *report["notes"], *_of_training(report)]


def _of_others(report: Mapping[str, Any]) -> list[str]:
    others = [f"{rows:,} of {name}" for name, rows in report["other_models"].items()]
    return [f"Left out, as they are of other models: {', '.join(others)}."] if others else []


def _of_labels(report: Mapping[str, Any]) -> list[str]:
    found = report["labels"]
    if found is None:
        return []
    told = []
    if found["rows"]:
        low, high = found["ci"]
        before = "" if found["reference"] is None else f"; on the test rows {found['reference']:.1%}"
        interval = f"{low:.1%} to {high:.1%} with {found['confidence']:.0%} confidence"
        told.append(
            f"Accuracy {found['accuracy']:.1%} ({interval}) on {found['rows']:,} rows whose labels came{before}."
        )
    else:
        told.append("No label in the file belongs to a logged row.")
    if found["rows"] and not found["tested"]:
        told.append(f"Accuracy isn't tested: that starts at {report['rules']['min_labels']:,} rows with labels.")
    for name, why in (("unmatched", "in no logged row"), ("conflicting", "with several labels, left out")):
        if found[name]:
            shown = found["examples"][name]
            more = " ..." if found[name] > len(shown) else ""
            told.append(f"{found[name]:,} {found['key']}s {why}: {', '.join(shown)}{more}.")
    if found["unknown"]:
        told.append(f"{found['unknown']:,} rows have a label that the model never gives; they count as wrong.")
    return told


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
    return [f"Training was started: {found['run']} of the deployment {found['deployment']}."]


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
    """The report for an artifact that people read in a browser."""
    lines = [f"**{_escaped(headline(report))}**", ""]
    if report["tests"]:
        lines += [f"| {' | '.join(HEADER)} |", "|" + " --- |" * len(HEADER)]
        lines += [f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in rows(report)]
        lines.append("")
    return "\n".join([*lines, *(f"- {_escaped(sentence)}" for sentence in sentences(report))])


def _escaped(text: str) -> str:
    """Words of texts may hold anything."""
    return "".join(f"\\{letter}" if letter in "|*_`<>[]\\" else letter for letter in text.replace("\n", " "))
