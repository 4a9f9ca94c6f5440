"""Where the report and the card lie, and whether those are still the ones that were written; imports nothing heavy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.params.project import Params

PAGE, CARD = Path("reports/report.html"), Path("reports/model_card.md")


def write(root: Path, page: str, card: str) -> dict[str, Path]:
    """Write both, never half of one, whatever dies; their paths by the names they have in MLflow."""
    (root / PAGE).parent.mkdir(parents=True, exist_ok=True)
    for place, text in ((PAGE, page), (CARD, card)):
        draft = (root / place).with_name(f"{place.name}.partial")
        draft.write_text(text, encoding="utf-8")
        draft.replace(root / place)
    return {place.name: root / place for place in (PAGE, CARD)}


def fingerprint(root: Path, params: Params) -> str | None:
    """What the two files hold and what params.yaml states for the card, as a hash; None where a file is missing."""
    digest = hashlib.sha256(params.card.model_dump_json().encode())
    try:
        for place in (PAGE, CARD):
            digest.update(hashlib.sha256((root / place).read_bytes()).digest())
    except OSError:
        return None
    return digest.hexdigest()
