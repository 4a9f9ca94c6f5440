"""Promoting and taking back by hand: what the gate said is overruled, and the tags say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.errors import UserError
from flows.gating import report
from flows.gating.decision import BY_HAND, TAKEN_BACK
from flows.tracking.champions import CANDIDATE, CHAMPION, Champions, Version

_EMPTY = ("group", "difference", "ci", "confidence", "mcnemar", "rows", "documents", "rules", "lock")


def promote(champions: Champions, number: str | None, reason: str | None) -> tuple[Version | None, Version]:
    """Make a version the champion, the candidate if none is named; gives the old champion and the new one.

    The gate puts none of the versions that were there by now in its place, only a newer one.

    Raises:
        UserError: there is no such version (``parameters``), or its files are gone (``model``).
    """
    versions = champions.versions()
    version = _named(champions.name, versions, number)
    champion = next((found for found in versions if CHAMPION in found.aliases), None)
    if champion == version:
        return champion, version
    champions.check_files(version)
    said = f"Promoted by hand{f': {reason}' if reason else ''}."
    decision = _decision(champions.name, version, champion, BY_HAND, [said, *_overruled(version)])
    _tell(champions, version, {**decision, "newest": max(int(found.number) for found in versions)})
    champions.promote(version, champion.number if champion else None)
    return champion, version


def roll_back(champions: Champions, reason: str | None) -> tuple[Version | None, Version]:
    """Make the previous champion the champion again; gives the old champion and the new one.

    The gate doesn't promote the one that was taken back a second time.

    Raises:
        UserError: there is no previous champion (``nothing``), or its files are gone (``model``).
    """
    champion, previous = champions.to_roll_back()
    if champion:  # told first: a gate that comes between must not promote it again
        said = f"Taken back by hand{f': {reason}' if reason else ''}; version {previous.number} is the champion again."
        _tell(champions, champion, _decision(champions.name, champion, previous, TAKEN_BACK, [said]))
    champions.roll_back(previous, champion.number if champion else None)
    return champion, previous


def _named(name: str, versions: list[Version], number: str | None) -> Version:
    if number is None:
        found = next((version for version in versions if CANDIDATE in version.aliases), None)
    else:
        found = next((version for version in versions if version.number == number), None)
    if found:
        return found
    known = ", ".join(version.number for version in versions[:20])
    raise UserError(
        f"'{name}' has no version {number}." if number else f"'{name}' has no candidate yet.",
        f"Its versions are: {known}." if known else "Run the pipeline first: `stillhouse run`.",
        "parameters",
    )


def _overruled(version: Version) -> list[str]:
    """What the gate had said against the version."""
    known = version.decision or {}
    against = known.get("reasons") or []
    return [f"Before: {against[0]}"] if against and not known.get("promoted") else []


def _decision(
    name: str, version: Version, other: Version | None, outcome: str, reasons: list[str]
) -> Mapping[str, Any]:
    """A decision with the keys of the gate's; the test rows are those of the gate's last look at the version."""
    return {
        "promoted": outcome == BY_HAND,
        "outcome": outcome,
        "reasons": reasons,
        "task": (version.decision or {}).get("task"),
        **dict.fromkeys(_EMPTY),
        "groups": {},
        "floors": {},
        "challenger": {"version": version.number, "content": version.content},
        "champion": {"version": other.number, "content": other.content} if other else None,
        "registered_model": name,
        "test": (version.decision or {}).get("test"),
        "test_set_changed": False,
        "run": version.run,
        "time": report.now(),
    }


def _tell(champions: Champions, version: Version, decision: Mapping[str, Any]) -> None:
    champions.tell(version, decision)
    champions.tell_run(version.run, decision)
