"""reports/decision.json: the gate's last decision here, and what it says for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.params.gate import Gate
from flows.markup import markdown as escaped

DECISION = Path("reports/decision.json")


def read(root: Path) -> dict[str, Any] | None:
    """The last decision; None where there is none, or half of one."""
    try:
        found = json.loads((root / DECISION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(root: Path, decision: Mapping[str, Any]) -> None:
    """Never half of it, whatever dies."""
    path = root / DECISION
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.partial")
    draft.write_text(json.dumps(decision, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def current(root: Path, lock_digest: str, rules: Gate) -> bool:
    """Whether the decision is about these results, by these rules."""
    found = read(root) or {}
    return (found.get("lock"), found.get("rules")) == (lock_digest, rules.model_dump())


def now() -> str:
    """The time of a decision."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def headline(decision: Mapping[str, Any]) -> str:
    """What became of the challenger, in a few words."""
    version, champion = decision["challenger"]["version"], decision["champion"]
    if decision["promoted"]:
        return f"promoted: version {version} is the champion"
    if champion and champion["version"] == version:
        return f"version {version} stays the champion"
    return f"version {version} not promoted ({decision['outcome']})"


def sentences(decision: Mapping[str, Any]) -> list[str]:
    """The headline, and under it each reason."""
    line = headline(decision)
    return [f"{line[0].upper()}{line[1:]}.", *(f"- {reason}" for reason in decision["reasons"])]


def markdown(decision: Mapping[str, Any]) -> str:
    """The decision for an artifact that people read in a browser."""
    line = headline(decision)
    name, first = decision["registered_model"], f"{line[0].upper()}{line[1:]}."
    reasons = [f"- {escaped(reason)}" for reason in decision["reasons"]]
    return "\n".join([f"**{escaped(name)}: {first}**", "", *reasons, "", *_floors(decision)])


def _floors(decision: Mapping[str, Any]) -> list[str]:
    """The floors as a table."""
    if not decision["floors"]:
        return []
    rows = [
        f"| {name} | {floor['asked']:.4g} | {'-' if floor['found'] is None else format(floor['found'], '.4g')} "
        f"| {'yes' if floor['met'] else 'no'} |"
        for name, floor in decision["floors"].items()
    ]
    return ["| floor | asked | found | met |", "| --- | ---: | ---: | --- |", *rows]
