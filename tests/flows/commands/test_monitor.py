"""`stillhouse monitor`: its table, its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows import cli
from flows.commands import monitor
from tests.flows.test_monitoring import FOUND


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asked for."""
    asked: list[Any] = []
    monkeypatch.setattr(monitor, "_found", lambda *given: asked.append(given) or FOUND)
    return asked


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["monitor", *arguments], env={"COLUMNS": "140"})


def test_the_table_names_each_test_and_its_verdict(asked: list[Any]) -> None:
    done = invoke("--since", "3d", "--labels", "labels.csv")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "Drift of confidence: 300 rows of 小模型/3 since 2026-11-16 12:00 UTC."
    assert lines[2] == "confidence 0.98, 95% to 0.99 0.7, 95% to 0.9 0.200 KS distance 0.1 1e-05 drift"
    assert asked == [("3d", Path.cwd() / "labels.csv")]
    assert done.exit_code == 0


@pytest.mark.usefixtures("asked")
def test_json_is_the_whole_report() -> None:
    assert json.loads(invoke("--json").stdout) == FOUND
