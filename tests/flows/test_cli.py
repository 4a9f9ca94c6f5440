"""The command line: quick to help, one readable message and exit code for whatever goes wrong."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from click.testing import Result
from typer.testing import CliRunner

from components.errors import UserError
from flows import cli
from flows.commands import common, data, run
from flows.repo.planning import PlannedStage

ROOT = Path(__file__).parents[2]
COMMANDS = [[], ["run"], ["plan"], ["compare"], ["ui"], ["runtime"], ["data"], ["data", "pull"], ["data", "add"]]
HEAVY = ("torch", "transformers", "mlflow", "prefect", "great_expectations", "dvc")
HELP = f"""
import contextlib, io, json, sys
from flows.cli import app
said = {{}}
for command in {COMMANDS!r}:
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            app([*command, "--help"])
    except SystemExit as end:
        said[" ".join(command)] = [end.code, output.getvalue()]
print(json.dumps([said, sorted(set(sys.modules) & set({HEAVY!r}))]))
"""
# A whole `stillhouse` process whose command `plan` does what is put in place of BODY.
PLAN = """
import time
import flows.cli as cli

def workspace():
    BODY

cli.common.workspace = workspace
cli.main()
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def plan_that(body: str) -> subprocess.Popen[str]:
    """A process that runs `stillhouse plan`."""
    command = [sys.executable, "-c", PLAN.replace("BODY", body), "plan"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def plan_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Result]:
    """Runs `stillhouse plan` with something raised in it."""

    def plan(error: BaseException) -> Result:
        def workspace() -> NoReturn:
            raise error

        monkeypatch.setattr(common, "workspace", workspace)
        return invoke("plan")

    return plan


def test_help_works_for_every_command_and_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    said, heavy = json.loads(done.stdout)
    assert heavy == []
    for command, (code, text) in said.items():
        assert code == 0, command
        assert "Usage:" in text
        assert command in text
    assert len(said) == len(COMMANDS)


def test_every_command_is_among_those_whose_help_is_tested() -> None:
    found = [[str(command.callback.__name__)] for command in cli.app.registered_commands]
    found += [["data", str(command.callback.__name__)] for command in data.app.registered_commands]
    assert sorted([*found, [], ["data"]]) == sorted(COMMANDS)


def test_the_version_is_the_installed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"stillhouse": "1.2.3"}.__getitem__)
    done = invoke("--version")
    assert (done.exit_code, done.stdout) == (0, "stillhouse 1.2.3\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["plan", "--nonsense"],
        ["run", "--parallel", "0"],
        ["data", "add"],
        ["ui", "--prefect-port", "70000"],
        ["ui", "--mlflow-port", "0"],
    ],
    ids=" ".join,
)
def test_a_command_that_makes_no_sense_ends_with_code_2(arguments: list[str]) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_command_ends_with_130_and_no_traceback(
    plan_raises: Callable[[BaseException], Result],
) -> None:
    done = plan_raises(KeyboardInterrupt())
    assert done.exit_code == 130
    assert "Interrupted" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_ends_a_command_like_ctrl_c() -> None:
    with plan_that("print('up', flush=True); time.sleep(60)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Interrupted" in errors
    assert "Traceback" not in errors


def test_the_users_mistake_is_told_with_the_remedy_and_code_2(plan_raises: Callable[[BaseException], Result]) -> None:
    done = plan_raises(UserError("Expected a data/ folder; 它不在.", "Get it: `stillhouse data pull`."))
    assert done.exit_code == 2
    assert done.stderr == "Error: Expected a data/ folder; 它不在.\nTo do: Get it: `stillhouse data pull`.\n"
    assert "To do" not in plan_raises(UserError("No remedy.")).stderr


def test_a_mistake_in_a_command_of_a_group_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def workspace() -> NoReturn:
        raise UserError("No project.")

    monkeypatch.setattr(common, "workspace", workspace)
    done = invoke("data", "pull")
    assert (done.exit_code, done.stderr) == (2, "Error: No project.\n")


@pytest.mark.parametrize("text", ["[bold]x[/]", "[/]", "data[0]", "C:\\[red]", "data.csv:100: no"])
def test_markup_in_a_message_is_shown_as_it_stands(plan_raises: Callable[[BaseException], Result], text: str) -> None:
    done = plan_raises(UserError(f"Got {text} here.", f"Write {text} no more."))
    assert done.stderr == f"Error: Got {text} here.\nTo do: Write {text} no more.\n"


def test_a_long_message_is_not_broken_in_the_middle_of_a_path(plan_raises: Callable[[BaseException], Result]) -> None:
    path = "/somewhere/" + "deep/" * 60 + "file"
    assert path in plan_raises(UserError(f"Missing: {path}")).stderr


def test_a_full_disk_is_the_users_to_mend(plan_raises: Callable[[BaseException], Result]) -> None:
    done = plan_raises(OSError(errno.ENOSPC, "No space left on device", "artifacts/x"))
    assert done.exit_code == 2
    assert "Error: The disk is full" in done.stderr
    assert "To do: Free some space" in done.stderr


def test_an_error_of_ours_ends_with_1_and_its_traceback() -> None:
    with plan_that("raise ValueError('[bold]broken[/]')") as process:
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in errors
    assert "ValueError: [bold]broken[/]" in errors


class TestPlan:
    """`stillhouse plan`."""

    @pytest.fixture(autouse=True)
    def foreseen(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What the plan is."""
        found = {
            "plan": [
                PlannedStage("validate", "skip"),
                PlannedStage("teacher", "run", ["data.labels: [a] -> [[b]/]", "b", "c", "d", "e"]),
            ],
            "then": ["benchmark", "publish"],
        }
        monkeypatch.setattr(common, "workspace", lambda: None)
        monkeypatch.setattr(run, "_foresee", lambda workspace: (found["plan"], found["then"]))
        return found

    def test_for_machines_it_is_json_with_stages_and_then(self) -> None:
        done = invoke("plan", "--json")
        assert done.exit_code == 0
        found = json.loads(done.stdout)
        assert found["then"] == ["benchmark", "publish"]
        assert found["stages"][0] == {"name": "validate", "action": "skip", "because": []}
        assert found["stages"][1]["because"] == ["data.labels: [a] -> [[b]/]", "b", "c", "d", "e"]

    def test_for_people_it_names_three_reasons_as_they_stand_and_counts_the_rest(self) -> None:
        lines = invoke("plan").stdout.splitlines()
        assert lines[0] == "Plan"
        assert lines[1].split() == ["validate", "skip"]
        assert " ".join(lines[2].split()) == "teacher run data.labels: [a] -> [[b]/]; b; c and 2 more"
        assert lines[3] == "  then: benchmark, publish"

    def test_nothing_to_do_is_said_only_when_nothing_is_outstanding(self, foreseen: dict[str, Any]) -> None:
        foreseen["plan"] = [PlannedStage("validate", "skip")]
        assert "Nothing changed" not in invoke("plan").stdout
        foreseen["then"] = []
        assert "Nothing changed" in invoke("plan").stdout


class TestRun:
    """`stillhouse run`."""

    @pytest.fixture
    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many stages at once were asked for, for each flow that was started; a flow ends with a warning."""
        started: list[int] = []

        def flow(workspace: Any, parallel: int) -> list[str]:
            started.append(parallel)
            return ["publish: [mlflow] is away"]

        monkeypatch.setattr(common, "workspace", lambda: None)
        monkeypatch.setattr(run, "_run_flow", flow)
        monkeypatch.setattr(run, "_print_comparison", lambda console, workspace: console.print("COMPARED"))
        return started

    def test_no_flow_is_started_when_there_is_nothing_to_do(
        self, runs: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run, "_foresee", lambda _: ([PlannedStage("validate", "skip")], []))
        done = invoke("run")
        assert (done.exit_code, runs) == (0, [])
        assert "COMPARED" in done.stdout

    def test_a_side_effect_that_failed_is_told_after_the_comparison(
        self, runs: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run, "_foresee", lambda _: ([PlannedStage("validate", "skip")], ["publish"]))
        done = invoke("run", "--parallel", "3")
        assert (done.exit_code, runs) == (0, [3])
        assert done.stdout.index("COMPARED") < done.stdout.index("Not done: publish: [mlflow] is away")
        assert "tries again" in done.stdout


@pytest.mark.parametrize(
    ("options", "ports"),
    [([], (None, None)), (["--mlflow-port", "5091"], (None, 5091)), (["--prefect-port", "4200"], (4200, None))],
)
def test_only_a_port_that_was_asked_for_is_insisted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], ports: tuple[int | None, int | None]
) -> None:
    from flows import server

    asked: list[Any] = []
    monkeypatch.setattr(common, "workspace", lambda: SimpleNamespace(root=tmp_path))
    monkeypatch.setattr(server, "serve_uis", lambda root, prefect, mlflow, say: asked.append((prefect, mlflow)))
    assert invoke("ui", *options).exit_code == 0
    assert asked == [ports]


def test_a_plan_that_this_machine_cannot_carry_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import checks

    def refuse(*_: Any) -> NoReturn:
        raise UserError("runtime.device: cuda was asked for.", "Choose one of: cpu.")

    monkeypatch.setattr(common, "workspace", lambda: SimpleNamespace(plan=list))
    monkeypatch.setattr(checks, "check", lambda workspace: None)
    monkeypatch.setattr(checks, "check_plan", refuse)
    for command in ("plan", "run"):
        done = invoke(command)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "runtime.device: cuda" in done.stderr


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose comparison is empty and whose runs are in its own store."""
    from flows import compare

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(compare, "comparison", lambda root: {})
    monkeypatch.setattr(compare, "table", lambda comparison, width: "")
    monkeypatch.setattr(compare, "verdicts", lambda comparison: [])
    monkeypatch.setattr(common, "workspace", lambda: SimpleNamespace(root=tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        (None, "`make ui`, then MLflow at http://127.0.0.1:5000 (sqlite:///"),
        ("http://me:hunter2@tracking.example:8080/", "http://tracking.example:8080"),
    ],
)
@pytest.mark.usefixtures("compared")
def test_the_place_of_the_runs_is_where_they_are_seen_and_holds_no_password(
    monkeypatch: pytest.MonkeyPatch, uri: str | None, place: str
) -> None:
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    shown = invoke("compare").stdout
    assert f"runs, curves, models  {place}" in shown
    assert "hunter2" not in shown
    assert ("make ui" in shown) == (uri is None)


def test_the_place_of_the_runs_is_the_running_ui_whatever_its_port(compared: Path) -> None:
    from flows import server

    with server._only_ui(compared) as write_note:
        write_note("http://127.0.0.1:4291", "http://127.0.0.1:5091")
        shown = invoke("compare").stdout
    assert "runs, curves, models  MLflow at http://127.0.0.1:5091 (sqlite:///" in shown
    assert "make ui" not in shown
    assert "`make ui`, then MLflow at http://127.0.0.1:5000" in invoke("compare").stdout


def test_saying_where_the_runs_are_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from flows.tracking.store import tracking_uri, web_address; "
        "web_address(tracking_uri(Path.cwd())); "
        f"print(sorted(set(sys.modules) & {{*{HEAVY!r}, 'urllib.request'}}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
