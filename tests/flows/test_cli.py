"""The command line: quick to help, one readable message and exit code for whatever goes wrong."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from components.errors import UserError
from flows import cli
from flows.commands import common, run
from flows.commands.plan_table import Foresight
from flows.repo import overrides, remotes
from flows.repo.choice import EVERYTHING, Choice
from flows.repo.planning import PlannedStage
from flows.repo.workspace import Workspace
from flows.runs.options import RunOptions

ROOT = Path(__file__).parents[2]


def commands(app: typer.Typer, *path: str) -> Iterator[list[str]]:
    """Every command and group of them, as it is written after `stillhouse`."""
    yield [*path]
    for command in app.registered_commands:
        yield [*path, command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")]
    for group in app.registered_groups:
        assert group.typer_instance
        yield from commands(group.typer_instance, *path, str(group.name))


COMMANDS = list(commands(cli.app))
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
    assert {"", "run", "plan", "data add"} <= set(said)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("deploy", "[NAME]..."),
        ("verify", "Exit code 0:"),
        ("verify", "2: it could not"),
        ("plan", "makes the worktree"),
    ],
)
def test_the_help_tells_what_is_not_to_be_guessed(command: str, words: str) -> None:
    text = " ".join(invoke(command, "--help").stdout.split())
    assert words in text
    assert "[[" not in text


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
    def foreseen(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Where and how a run was foreseen."""
        stages = [PlannedStage("validate", "skip"), PlannedStage("teacher", "resume", ["词"], 3, 1.5)]
        asked: list[Any] = []

        def foresee(workspace: Any, options: RunOptions) -> Foresight:
            asked.append((workspace, options))
            return Foresight(stages, ["benchmark", "publish"])

        monkeypatch.setattr(common, "workspace", lambda: "here")
        monkeypatch.setattr(run, "_foresee", foresee)
        monkeypatch.setattr(remotes, "remote", lambda workspace: None)
        return asked

    def test_for_machines_it_is_json_with_stages_and_then(self) -> None:
        done = invoke("plan", "--json")
        assert done.exit_code == 0
        assert json.loads(done.stdout) == {
            "stages": [
                {"name": "validate", "action": "skip", "because": [], "step": None, "seconds": None},
                {"name": "teacher", "action": "resume", "because": ["词"], "step": 3, "seconds": 1.5},
            ],
            "then": ["benchmark", "publish"],
        }

    def test_for_people_it_is_a_table_and_what_follows(self) -> None:
        lines = [" ".join(line.split()) for line in invoke("plan").stdout.splitlines()]
        assert lines[:3] == ["Plan", "validate skip", "teacher resume 词 about 2 s"]
        assert "then: benchmark, publish" in lines

    def test_stages_are_chosen_by_commas_by_repetition_and_by_the_ends(self, foreseen: list[Any]) -> None:
        assert invoke("plan").exit_code == 0
        chosen = ["--only", "a, b", "--only", "c,", "--from", "d", "--until", "e"]
        assert invoke("plan", *chosen).exit_code == 0
        assert [options.choice for _, options in foreseen] == [EVERYTHING, Choice(("a", "b", "c"), "d", "e")]

    @pytest.mark.parametrize("only", ["", ",", " , "])
    def test_naming_no_stage_is_not_naming_all(
        self, foreseen: list[Any], monkeypatch: pytest.MonkeyPatch, only: str
    ) -> None:
        monkeypatch.setattr(common, "workspace", lambda: Workspace(ROOT))
        done = invoke("plan", "--only", only)
        assert (done.exit_code, foreseen) == (2, [])
        assert "--only names no stage" in done.stderr
        assert "teacher, label" in done.stderr

    @pytest.mark.parametrize(("option", "pulls"), [([], True), (["--pull"], True), (["--no-pull"], False)])
    def test_what_a_remote_has_is_pulled_unless_it_is_declined(
        self, foreseen: list[Any], monkeypatch: pytest.MonkeyPatch, option: list[str], pulls: bool
    ) -> None:
        monkeypatch.setattr(remotes, "remote", lambda workspace: "shared")
        invoke("plan", *option)
        assert foreseen[0][1].pull == pulls

    @pytest.mark.parametrize(
        "command", [["plan", "--pull"], ["plan", "--push"], ["run", "--pull"], ["run", "--push"]], ids=" ".join
    )
    def test_what_needs_a_remote_is_refused_where_there_is_none(self, command: list[str]) -> None:
        done = invoke(*command)
        assert done.exit_code == 2
        assert f"{command[1]}: there is no default DVC remote" in done.stderr
        assert "dvc remote add" in done.stderr

    def test_parameters_for_this_run_alone_are_planned_in_a_worktree_of_their_own(
        self, foreseen: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        place = SimpleNamespace(root=tmp_path)
        given: list[Any] = []

        def worktree_with(owner: Any, values: Any, *, if_busy: str) -> Any:
            given.append((owner, values, if_busy))
            return place

        monkeypatch.setattr(overrides, "worktree_with", worktree_with)
        monkeypatch.chdir(ROOT)
        done = invoke("plan", "--set", "distill.temperature=4", "--set", "teacher.base=data/词")
        assert "Plan with distill.temperature=4, teacher.base=data/词" in done.stdout
        assert Path.cwd() == tmp_path
        assert given == [("here", {"distill.temperature": 4, "teacher.base": "data/词"}, "refuse")]
        workspace, options = foreseen[0]
        assert workspace is place
        assert not options.registers
        assert options.overrides == {"distill.temperature": "4", "teacher.base": "data/词"}


class TestForesight:
    """What a run would do, with the checks and the choice of stages in it."""

    @pytest.fixture(autouse=True)
    def _sound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows import checks, receipts

        monkeypatch.setattr(checks, "check", lambda workspace: None)
        monkeypatch.setattr(checks, "check_plan", lambda params, plan: None)
        monkeypatch.setattr(receipts, "foreseen", lambda *_: ["publish"])

    def test_a_part_that_leaves_others_out_of_date_is_not_published(self, toy: Any) -> None:
        toy.edit("params.yaml", "times: 1", "times: 2")
        found = run._foresee(toy.workspace, RunOptions(choice=Choice(("second", "other"))))
        assert [(stage.name, stage.action) for stage in found.stages] == [("second", "run"), ("other", "skip")]
        assert (found.then, found.left, found.idle) == ([], ["join"], False)

    def test_a_part_that_is_all_that_was_out_of_date_is_published(self, toy: Any) -> None:
        toy.edit("params.yaml", "times: 1", "times: 2")
        found = run._foresee(toy.workspace, RunOptions(choice=Choice(first="second")))
        assert [stage.name for stage in found.stages] == ["second", "join"]
        assert (found.then, found.left) == (["publish"], [])

    def test_a_part_that_is_up_to_date_while_others_are_not_leaves_nothing_to_do(self, toy: Any) -> None:
        toy.edit("params.yaml", "times: 1", "times: 2")
        found = run._foresee(toy.workspace, RunOptions(choice=Choice(("other",))))
        assert (found.idle, found.left) == (True, ["second", "join"])

    def test_where_pushing_is_asked_for_what_the_remote_lacks_is_something_to_do(
        self, toy: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flows import receipts

        monkeypatch.setattr(remotes, "remote", lambda workspace: "store")
        toy.edit("params.yaml", "times: 1", "times: 2")
        options = RunOptions(choice=Choice(("other",)), push=True)
        found = run._foresee(toy.workspace, options)
        assert (found.idle, found.then) == (False, ["push"])
        receipts.pushed(toy.workspace).add("push", "0")
        assert run._foresee(toy.workspace, options).idle


class TestRun:
    """`stillhouse run`."""

    @pytest.fixture
    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
        """How each run was asked for; a run ends with a warning."""
        from flows.runs import running

        started: list[RunOptions] = []

        def start(workspace: Any, options: RunOptions) -> list[str]:
            started.append(options)
            return ["publish: [mlflow] is away"]

        monkeypatch.setattr(common, "workspace", lambda: None)
        monkeypatch.setattr(remotes, "remote", lambda workspace: "shared")
        monkeypatch.setattr(running, "exclusive", lambda workspace, if_busy: contextlib.nullcontext())
        monkeypatch.setattr(running, "run", start)
        monkeypatch.setattr(run, "_print_comparison", lambda console, workspace: console.print("COMPARED"))
        monkeypatch.setattr(run, "_foresee", lambda *_: Foresight([PlannedStage("validate", "skip")], ["publish"]))
        return started

    def test_no_flow_is_started_when_there_is_nothing_to_do(
        self, runs: list[RunOptions], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run, "_foresee", lambda *_: Foresight([PlannedStage("validate", "skip")]))
        done = invoke("run")
        assert (done.exit_code, runs) == (0, [])
        assert "COMPARED" in done.stdout

    def test_a_side_effect_that_failed_is_told_after_the_comparison(self, runs: list[RunOptions]) -> None:
        done = invoke("run")
        assert (done.exit_code, len(runs)) == (0, 1)
        assert done.stdout.index("COMPARED") < done.stdout.index("Not done: publish: [mlflow] is away")
        assert "tries again" in done.stdout

    def test_every_option_reaches_the_run(self, runs: list[RunOptions]) -> None:
        assert invoke("run").exit_code == 0
        given = ["--parallel", "3", "--only", "a", "--push", "--time-limit", "2h", "--wait"]
        assert invoke("run", *given).exit_code == 0
        assert runs[0] == RunOptions(pull=True)
        assert runs[1] == RunOptions(3, Choice(("a",)), pull=True, push=True, time_limit=7200.0, if_busy="wait")

    def test_a_time_limit_that_is_none_is_refused_before_anything_starts(self, runs: list[RunOptions]) -> None:
        done = invoke("run", "--time-limit", "soon")
        assert (done.exit_code, runs) == (2, [])
        assert "got 'soon'" in done.stderr

    @pytest.mark.parametrize("left", [[], ["evaluate"]])
    def test_a_part_is_compared_only_when_it_left_nothing_out_of_date(
        self, runs: list[RunOptions], monkeypatch: pytest.MonkeyPatch, left: list[str]
    ) -> None:
        stages = [PlannedStage("teacher", "run", ["never run"])]
        monkeypatch.setattr(run, "_foresee", lambda *_: Foresight(stages, [], ["evaluate"]))
        monkeypatch.setattr(run, "_left", lambda *_: left)
        done = invoke("run", "--only", "teacher")
        assert (done.exit_code, len(runs)) == (0, 1)
        assert ("COMPARED" in done.stdout) == (not left)
        assert ("The rest, publication and comparison: `stillhouse run`." in done.stdout) == bool(left)


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
    from flows.runs import running

    def refuse(*_: Any) -> NoReturn:
        raise UserError("runtime.device: cuda was asked for.", "Choose one of: cpu.")

    workspace = SimpleNamespace(plan=lambda choice, pull: [])
    monkeypatch.setattr(common, "workspace", lambda: workspace)
    monkeypatch.setattr(running, "exclusive", lambda workspace, if_busy: contextlib.nullcontext())
    monkeypatch.setattr(remotes, "remote", lambda workspace: None)
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
    monkeypatch.setattr(common, "workspace", lambda: Workspace(tmp_path))
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


def test_the_results_of_a_worktree_are_shown_where_they_are_and_its_runs_with_the_checkouts(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workspace(compared / ".stillhouse/worktrees/set-1")
    place.state.mkdir(parents=True)
    (place.state / "owner").write_text(str(compared))
    monkeypatch.setattr(common, "workspace", lambda: place)
    shown = invoke("compare").stdout
    assert "the data gate         .stillhouse/worktrees/set-1/reports/gate/report.html" in shown
    assert "(sqlite:///.stillhouse/mlflow/mlflow.db)" in shown
    assert "The checkout and its own results are as they were." in shown


def test_the_gates_decision_about_these_results_is_told_with_its_reasons_and_one_about_others_is_not(
    compared: Path,
) -> None:
    from flows.gating import report

    decision = {"promoted": False, "outcome": "tie", "reasons": ["[red]它没有更好[/]"], "lock": ""}
    decision |= {"challenger": {"version": "3"}, "champion": {"version": "2"}}
    report.write(compared, decision)
    lines = [line.rstrip() for line in invoke("compare").stdout.splitlines()]
    assert lines[lines.index("Version 3 not promoted (tie).") + 1] == "  - [red]它没有更好[/]"
    report.write(compared, decision | {"lock": "another"})
    assert "not promoted" not in invoke("compare").stdout


def test_saying_where_the_runs_are_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from flows.tracking.store import tracking_uri, web_address; "
        "web_address(tracking_uri(Path.cwd())); "
        f"print(sorted(set(sys.modules) & {{*{HEAVY!r}, 'urllib.request'}}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
