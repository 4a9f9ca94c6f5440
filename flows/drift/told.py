"""Which drift people were told of, kept apart from the report: whoever looks by hand silences nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.drift import report
from flows.settings import STATE

FILE = STATE / "drift-told.json"


def due(root: Path, found: Mapping[str, Any]) -> bool:
    """Whether a report shows drift that nobody was told of: the last one told was of another model or other kinds."""
    return bool(found["outcome"] == report.DRIFT and _read(root) != _drift(found))


def remember(root: Path, found: Mapping[str, Any]) -> None:
    """People were told of the drift in a report."""
    path = root / FILE
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f"{path.name}.partial")
    draft.write_text(json.dumps(_drift(found), ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def forget(root: Path) -> None:
    """The drift is over: should it come again, that is news."""
    (root / FILE).unlink(missing_ok=True)


def _drift(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": found["model"], "tests": report.drifted(found)}


def _read(root: Path) -> Any:
    try:
        return json.loads((root / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
