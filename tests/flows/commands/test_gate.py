"""`stillhouse promote`, `rollback` and `decisions`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from components.errors import UserError
from flows import cli, notifications, server
from flows.commands import gate
from flows.gating import by_hand
from flows.tracking.champions import Version

DECIDED = {
    "promoted": True,
    "outcome": "better",
    "time": "2026-11-23T07:38:46+00:00",
    "difference": 0.021,
    "ci": [0.004, 0.039],
    "reasons": ["[bold]它更好[/]", "And small."],
}
THIRD = Version("3", "c", "run-3", DECIDED, ("candidate", "champion"))
SECOND = Version("2", "b", "run-2", {**DECIDED, "promoted": False, "difference": None, "ci": None}, ("previous",))
FIRST = Version("1", "a", None, None, ())


class Registry:
    """What the commands ask of ``Champions``."""

    def __init__(self, root: Path, versions: list[Version]) -> None:
        self.name, self.root, self.found = "小模型", root, versions
        self.tracker = self

    def versions(self) -> list[Version]:
        return self.found

    def url(self, run: str) -> str:
        return f"http://here/{run}"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry(tmp_path, [THIRD, SECOND, FIRST])
    monkeypatch.setattr(gate, "_champions", lambda: made)
    return made


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "140"})


@pytest.mark.usefixtures("registry")
def test_the_decisions_are_a_table_with_the_first_reason() -> None:
    lines = [" ".join(line.split()) for line in invoke("decisions").stdout.splitlines()]
    assert lines[0] == "小模型"
    assert lines[2] == "3 (candidate, champion) 2026-11-23 07:38 yes +2.1 (+0.4 to +3.9) [bold]它更好[/]"
    assert lines[3] == "2 (previous) 2026-11-23 07:38 no - [bold]它更好[/]"
    assert lines[4] == "1 - - not decided yet"


@pytest.mark.usefixtures("registry")
def test_the_decisions_for_machines_have_every_reason() -> None:
    found = json.loads(invoke("decisions", "--json").stdout)
    assert found["registered_model"] == "小模型"
    assert found["versions"][0] == {"version": "3", "aliases": ["candidate", "champion"], **DECIDED}
    assert found["versions"][2]["promoted"] is None


def test_no_version_yet_is_said(registry: Registry) -> None:
    registry.found = []
    done = invoke("decisions")
    assert (done.exit_code, done.stdout) == (0, "'小模型' has no version yet: `stillhouse run`.\n")


def test_a_promotion_by_hand_takes_version_and_reason(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def promote(champions: Any, number: str | None, reason: str | None) -> Any:
        asked.append((number, reason))
        return SECOND, THIRD

    monkeypatch.setattr(by_hand, "promote", promote)
    done = invoke("promote", "3", "--reason", "客户")
    assert (done.exit_code, done.stdout) == (0, "Version 3 of 小模型 is the champion, in place of version 2.\n")
    assert invoke("promote").exit_code == 0
    assert asked == [("3", "客户"), (None, None)]
    monkeypatch.setattr(by_hand, "promote", lambda *_: (THIRD, THIRD))
    assert invoke("promote", "3").stdout == "Version 3 of 小模型 is the champion already.\n"


@pytest.mark.usefixtures("registry")
def test_a_rollback_says_who_is_champion_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "roll_back", lambda champions, reason: (THIRD, SECOND))
    assert invoke("rollback").stdout == "Version 2 of 小模型 is the champion, in place of version 3.\n"


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(("command", "function"), [("promote", "promote"), ("rollback", "roll_back")])
def test_a_mistake_ends_with_code_2(monkeypatch: pytest.MonkeyPatch, command: str, function: str) -> None:
    def refuse(*_: Any) -> None:
        raise UserError("'小模型' has no such version.", "Name another.", "parameters")

    monkeypatch.setattr(by_hand, function, refuse)
    done = invoke(command)
    assert done.exit_code == 2
    assert done.stderr == "Error: '小模型' has no such version.\nTo do: Name another.\n"


def test_people_are_told_of_a_champion_by_hand_and_no_api_is_started_for_nobody(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    started: list[Path] = []

    def api(root: Path) -> Any:
        started.append(root)
        return contextlib.nullcontext()

    monkeypatch.setattr(server, "prefect_api", api)
    monkeypatch.setattr(by_hand, "roll_back", lambda champions, reason: (THIRD, SECOND))
    monkeypatch.setattr(notifications, "notify", lambda *given: told.append(given) or [])
    invoke("rollback")
    assert (started, told) == ([], [])
    (registry.root / "prefect.yaml").write_text("notify: {promotion: [slack-webhook/team]}\n")
    invoke("rollback", "--reason", "客户")
    assert started == [registry.root]
    ((_, event, subject, body),) = told
    assert (event, subject) == ("promotion", "Stillhouse: 小模型 version 2")
    assert body == "`小模型`: the alias `champion` moved from version 3 to 2: http://here/run-2\n- 客户"
