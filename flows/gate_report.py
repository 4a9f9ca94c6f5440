"""The gate's report where the verdicts came from DVC's cache: rendered again from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from components.validate.report import REPORT, write_report

VERDICTS = Path("artifacts/validate/gate.json")


def current(root: Path) -> bool:
    """Whether the report shows the verdicts of this result; also when there are none yet."""
    page, shown, verdicts = root / REPORT / "report.html", root / REPORT / "gate.json", root / VERDICTS
    if not verdicts.exists():
        return True
    return page.exists() and shown.exists() and shown.read_bytes() == verdicts.read_bytes()


def restore(root: Path) -> str:
    """Write the report again and return its place; the Data Docs, which belonged to other verdicts, go."""
    shutil.rmtree(root / REPORT, ignore_errors=True)
    write_report(json.loads((root / VERDICTS).read_text(encoding="utf-8")), root / REPORT)
    return str(REPORT / "report.html")
