"""Reads the files that a run leaves; one that is missing or damaged counts as none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

EVALUATED = Path("artifacts/evaluate")


def bins(root: Path, model: str) -> list[tuple[float, float, int]]:
    """The calibration curve, as the evaluation tells it for `dvc plots`."""
    try:
        with (root / EVALUATED / "plots/reliability" / f"{model}.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError:
        return []
    return [(float(line["confidence"]), float(line["accuracy"]), int(line["rows"])) for line in lines]


def base_licence(folder: Path) -> str | None:
    """The licence that the base model's folder states: in its card's metadata, else the first line of its LICENSE."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    for line in head.splitlines():
        if line.startswith("license:"):
            return line.removeprefix("license:").strip(" \"'") or None
    try:
        licence = (folder / "LICENSE").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return next((line.strip() for line in licence.splitlines() if line.strip()), None)


def json_of(path: Path) -> Any:
    """What a JSON file holds; None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def lines_of(path: Path) -> list[dict[str, Any]]:
    """What a file of JSON lines holds; a last line that was cut off is left out."""
    found = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            found.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return found
