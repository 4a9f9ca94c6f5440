"""Receipts remember finished side effects, each for its own results and server."""

from __future__ import annotations

from pathlib import Path

from flows.receipts import Receipt


def test_a_receipt_remembers_across_processes(tmp_path: Path) -> None:
    Receipt(tmp_path, {"lock": "a"}).add("benchmark", "a.json")
    Receipt(tmp_path, {"lock": "a"}).add("publish", "b12")
    assert Receipt(tmp_path, {"lock": "a"}).done == {"benchmark": "a.json", "publish": "b12"}


def test_other_results_or_another_server_have_their_own(tmp_path: Path) -> None:
    Receipt(tmp_path, {"lock": "a", "tracking": "one"}).add("publish", "b12")
    assert Receipt(tmp_path, {"lock": "a", "tracking": "two"}).done == {}
    assert Receipt(tmp_path, {"lock": "b", "tracking": "one"}).done == {}


def test_a_damaged_receipt_counts_as_none(tmp_path: Path) -> None:
    receipt = Receipt(tmp_path, {"lock": "a"})
    receipt.add("publish", "b12")
    receipt.path.write_text("{")
    assert receipt.done == {}
