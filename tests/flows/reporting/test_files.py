"""The two files: written whole, and known again."""

from __future__ import annotations

from pathlib import Path

from components.params.card import Card
from components.params.project import Params
from flows.reporting.files import CARD, PAGE, fingerprint, write


def test_the_files_are_known_again_until_one_changes_or_the_card_states_something_else(
    tmp_path: Path, params: Params
) -> None:
    assert fingerprint(tmp_path, params) is None
    assert write(tmp_path, "页", "卡") == {"report.html": tmp_path / PAGE, "model_card.md": tmp_path / CARD}
    kept = fingerprint(tmp_path, params)
    assert kept == fingerprint(tmp_path, params) is not None
    assert fingerprint(tmp_path, params.model_copy(update={"card": Card(contact="谁")})) != kept
    write(tmp_path, "页", "卡2")
    assert fingerprint(tmp_path, params) != kept
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {PAGE.name, CARD.name}
