"""The flow's half of a stage, on torch-free toy stages: order, outcomes, failures, logs, streaming, interruption."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from components.errors import UserError
from flows.runs.display import Display
from flows.runs.options import RunOptions

ROOT = Path(__file__).parents[2]
Toy = Any


def run(toy: Toy, *options: Any, **named: Any) -> dict[str, str]:
    """Run the toy's plan inside a flow; outcome by stage."""
    from prefect import flow

    from flows.stages import run_stages

    display = Display(Console(quiet=True))

    @flow(name="toy")
    def toy_flow() -> dict[str, str]:
        results = run_stages(toy.workspace, toy.workspace.plan(), display, *options, **named)
        return {result.name: result.outcome for result in results}

    with contextlib.chdir(toy.root):
        return toy_flow()


def test_a_warning_is_shown_as_it_stands(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import stages
    from flows.runs.turns import Turns

    monkeypatch.setattr(stages, "get_run_logger", lambda: logging.getLogger("test"))
    console = Console(file=io.StringIO(), width=100)
    stage = stages._Stage(toy.workspace, toy.workspace.plan()[0], Display(console), Turns(1), False, None)
    stage._say("remote [red]s3://x[/red]: [/] denied")
    assert isinstance(console.file, io.StringIO)
    assert "remote [red]s3://x[/red]: [/] denied" in console.file.getvalue()


@pytest.mark.usefixtures("prefect_server")
class TestRunStages:
    """In one class, so that one server serves all."""

    def test_each_stage_ends_as_ran_then_unchanged_then_restored(self, new_toy: Toy) -> None:
        new_toy.workspace.add_data()
        assert set(run(new_toy).values()) == {"ran"}
        assert set(run(new_toy).values()) == {"unchanged"}
        new_toy.edit("params.yaml", "times: 1", "times: 2")
        assert run(new_toy) == {"first": "unchanged", "second": "ran", "join": "ran", "other": "unchanged"}
        new_toy.edit("params.yaml", "times: 2", "times: 1")
        assert run(new_toy) == {"first": "unchanged", "second": "restored", "join": "restored", "other": "unchanged"}

    def test_a_stage_downstream_of_equal_bytes_is_cut_off(self, toy: Toy) -> None:
        toy.edit("code/first.py", "from pathlib", "# a comment\nfrom pathlib")
        assert run(toy) == {"first": "ran", "second": "unchanged", "join": "unchanged", "other": "unchanged"}

    def test_parallel_and_serial_runs_agree_with_bare_dvc(self, new_toy: Toy, toy: Toy) -> None:
        new_toy.workspace.add_data()
        run(new_toy, RunOptions(parallel=4))
        assert new_toy.workspace.lock_entries() == toy.workspace.lock_entries()

    def test_a_stages_own_error_reaches_the_user_and_nothing_downstream_runs(self, toy: Toy) -> None:
        told = {"stage": "second", "kind": "gate", "message": "数据不合格", "remedy": "Mend it."}
        body = (
            "Path('.stillhouse/errors').mkdir(parents=True)\n"
            f"Path('.stillhouse/errors/second.json').write_text('''{json.dumps(told)}''')\nraise SystemExit(2)\n"
        )
        toy.edit("code/second.py", "times = ", body + "times = ")
        with pytest.raises(UserError) as caught:
            run(toy)
        assert (caught.value.kind, caught.value.message) == ("gate", "数据不合格")
        assert (toy.root / "artifacts/join").exists()
        assert toy.plan()["second"][0] == "run"

    def test_after_a_failure_no_other_stage_starts(self, toy: Toy) -> None:
        toy.edit("code/first.py", "keep = ", "raise ValueError('bad')\nkeep = ")
        toy.edit("code/other.py", "(here", "Path('started').touch()\n(here")
        with pytest.raises(Exception, match="bad"):
            run(toy)
        assert not (toy.root / "started").exists()

    def test_another_failure_carries_the_end_of_the_output(self, toy: Toy) -> None:
        from flows.runs.failures import StageFailed

        toy.edit("code/second.py", "times = ", "raise ValueError('坏了')\ntimes = ")
        with pytest.raises(StageFailed, match="坏了"):
            run(toy)

    def test_an_earlier_result_can_be_restored_after_a_failure(self, toy: Toy) -> None:
        toy.edit("code/second.py", "times = ", "raise ValueError('no')\ntimes = ")
        with pytest.raises(Exception, match="no"):
            run(toy)
        toy.edit("code/second.py", "raise ValueError('no')\ntimes = ", "times = ")
        assert run(toy)["second"] in ("restored", "unchanged")
        assert (toy.root / "artifacts/second").read_text(encoding="utf-8") == "文本,label 很好,1"

    def test_a_full_disk_said_by_dvc_itself_is_the_users_to_mend(self, toy: Toy) -> None:
        toy.edit(
            "code/second.py", "times = ", "raise SystemExit('ERROR: [Errno 28] No space left on device')\ntimes = "
        )
        with pytest.raises(UserError) as caught:
            run(toy)
        assert caught.value.kind == "disk"

    def test_a_result_that_dvc_could_not_copy_into_place_is_a_full_disk(self, toy: Toy) -> None:
        toy.edit("code/second.py", "times = ", "raise SystemExit('No possible cache link types for x')\ntimes = ")
        with pytest.raises(UserError, match="MB are free") as caught:
            run(toy)
        assert caught.value.kind == "disk"

    def test_a_growing_history_is_streamed_line_by_line(self, toy: Toy) -> None:
        lines = [{"phase": "general", "step": step, "total_steps": 3, "loss": 1.0} for step in (1, 2, 3)]
        body = (
            "import json, time\nfolder = here / 'second.partial'\nfolder.mkdir()\n"
            f"for line in {lines!r}:\n"
            "    with (folder / 'history.jsonl').open('a') as file: file.write(json.dumps(line) + '\\n')\n"
            "    time.sleep(0.8)\n"
        )
        toy.edit("code/second.py", "times = ", body + "times = ")
        left_by_a_killed_run = toy.root / "artifacts/second.partial"
        left_by_a_killed_run.mkdir()
        (left_by_a_killed_run / "history.jsonl").write_text(json.dumps(lines[0] | {"step": 9}) + "\n")
        pushed: list[dict[str, Any]] = []
        batches: list[int] = []

        @contextlib.contextmanager
        def listener() -> Iterator[Any]:
            yield lambda new: (pushed.extend(new), batches.append(len(new)))

        run(toy, listeners={"second": listener})
        assert pushed == lines
        assert len(batches) > 1

    def test_the_output_is_in_the_tasks_log(self, toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
        toy.edit("code/second.py", "times = ", "print('训练 begins')\ntimes = ")
        with caplog.at_level("INFO", logger="prefect.task_runs"):
            run(toy)
        assert any("训练 begins" in record.getMessage() for record in caplog.records)

    def test_parallel_stages_overlap_only_when_asked(self, new_toy: Toy) -> None:
        new_toy.workspace.add_data()
        for name in ("first", "other"):
            stamp = f"import time\nPath('{name}.start').write_text(str(time.time()))\ntime.sleep(1.5)\n"
            script = new_toy.root / "code" / f"{name}.py"
            end = f"\nPath('{name}.end').write_text(str(time.time()))\n"
            script.write_text(script.read_text().replace("here.mkdir", stamp + "here.mkdir", 1) + end)
        run(new_toy)

        def times(name: str) -> tuple[float, float]:
            start, end = ((new_toy.root / f"{name}.{kind}").read_text() for kind in ("start", "end"))
            return float(start), float(end)

        (one, two) = sorted(times(name) for name in ("first", "other"))
        assert one[1] <= two[0]
        for name in ("first", "other"):
            new_toy.edit(f"code/{name}.py", "1.5", "3.0")
        run(new_toy, RunOptions(parallel=2))
        (one, two) = sorted(times(name) for name in ("first", "other"))
        assert two[0] < one[1]

    def test_a_restored_result_never_has_wrong_bytes(self, toy: Toy) -> None:
        right = (toy.root / "artifacts/second").read_bytes()
        value = toy.workspace.output_hash("artifacts/second")
        kept = toy.root / ".dvc/cache/files/md5" / value[:2] / value[2:]
        kept.chmod(0o644)
        kept.write_bytes(b"XX")
        kept.chmod(0o444)
        (toy.root / "artifacts/second").unlink()
        assert run(toy)["second"] == "ran"
        assert (toy.root / "artifacts/second").read_bytes() == right

    def test_a_fault_that_may_pass_is_tried_again_and_a_mistake_is_not(
        self, toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0.1,0.1")
        toy.edit("params.yaml", "times: 1", "times: 2")
        for kind, attempts in (("tracking", 3), ("data", 1)):
            told = {"stage": "second", "kind": kind, "message": "away", "remedy": ""}
            body = (
                "with Path('tried').open('a') as file: file.write('x')\n"
                "Path('.stillhouse/errors').mkdir(parents=True, exist_ok=True)\n"
                f"Path('.stillhouse/errors/second.json').write_text('{json.dumps(told)}')\nraise SystemExit(2)\n"
            )
            toy.edit("code/second.py", "times = ", body + "times = ")
            with pytest.raises(UserError, match="away"):
                run(toy)
            assert (toy.root / "tried").read_text() == "x" * attempts
            (toy.root / "tried").unlink()
            toy.edit("code/second.py", body, "")

    def test_a_fault_that_passes_is_forgotten(self, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows.runs import repair

        monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0.1,0.1")
        toy.edit("params.yaml", "times: 1", "times: 2")
        faults = [UserError("the network is away", "", "network")]
        monkeypatch.setattr(repair, "keep_lock_file", lambda _: faults and (_ for _ in ()).throw(faults.pop()))
        assert run(toy) == {"first": "unchanged", "second": "ran", "join": "ran", "other": "unchanged"}

    def test_results_are_shared_as_each_stage_ends_and_another_clone_trains_nothing(
        self, toy: Toy, new_toy: Toy, tmp_path: Path
    ) -> None:
        for each in (toy, new_toy):
            with each.repo() as repo, repo.config.edit() as config:
                config["remote"] = {"shared": {"url": str(tmp_path / "shared")}}
                config["core"]["remote"] = "shared"
        toy.edit("params.yaml", "times: 1", "times: 2")
        assert run(toy, RunOptions(push=True))["second"] == "ran"
        new_toy.workspace.add_data()
        new_toy.edit("params.yaml", "times: 1", "times: 2")
        assert set(run(new_toy, RunOptions(pull=True)).values()) == {"restored"}
        assert new_toy.workspace.lock_entries() == toy.workspace.lock_entries()

    def test_a_remote_that_is_away_is_a_warning_where_results_are_given_to_it(
        self, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flows.repo import remotes

        tried = []

        def away(workspace: Any, stage: str) -> int:
            tried.append(stage)
            raise UserError(f"{stage} can't be pushed", "", "remote")

        monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0.1")
        monkeypatch.setattr(remotes, "remote", lambda _: "shared")
        monkeypatch.setattr(remotes, "push_stage", away)
        toy.edit("params.yaml", "times: 1", "times: 2")
        assert run(toy, RunOptions(push=True))["second"] == "ran"
        assert tried.count("second") == 2

    def test_a_remote_that_is_away_is_asked_twice_and_then_the_stages_run_here(
        self, toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flows.repo import remotes

        asked = []

        def away(workspace: Any, stage: str) -> int:
            asked.append(stage)
            raise UserError("the remote is away.", "", "remote")

        monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0.1,0.1,0.1")
        monkeypatch.setattr(remotes, "remote", lambda _: "shared")
        monkeypatch.setattr(remotes, "pull_stage", away)
        toy.edit("params.yaml", "times: 1", "times: 2")
        assert run(toy, RunOptions(pull=True))["second"] == "ran"
        assert asked == ["second", "second"]

    def test_times_are_kept_for_estimates_and_a_resumed_stage_counts_for_none(
        self, toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flows.repo import timings

        kept: list[tuple[str, str]] = []
        monkeypatch.setattr(timings, "add", lambda workspace, stage, outcome, seconds: kept.append((stage, outcome)))
        plan = type(toy.workspace).plan
        resumes = {"join": "resume"}
        monkeypatch.setattr(
            type(toy.workspace),
            "plan",
            lambda self: [replace(stage, action=resumes.get(stage.name, stage.action)) for stage in plan(self)],
        )
        toy.edit("params.yaml", "times: 1", "times: 2")
        run(toy)
        assert {("second", "ran"), ("join", "resumed")} <= set(kept)
        assert ("first", "ran") not in kept


FLOW = """
import contextlib, sys
from pathlib import Path
from rich.console import Console
from prefect import flow
from flows.runs.display import Display
from flows.runs.options import RunOptions
from flows.stages import run_stages
from flows.repo.workspace import Workspace

@flow
def toy():
    workspace = Workspace(Path.cwd())
    run_stages(workspace, workspace.plan(), Display(Console(quiet=True)))

toy()
"""


@pytest.mark.usefixtures("prefect_server")
def test_a_killed_flow_leaves_no_stage_behind_and_the_next_run_goes_on(toy: Toy) -> None:
    from prefect.settings import PREFECT_API_URL

    toy.edit(
        "code/second.py",
        "times = ",
        "import os, time\nPath('pid').write_text(str(os.getpid()))\ntime.sleep(9)\ntimes = ",
    )
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value(), "PYTHONPATH": str(ROOT)}
    flow = subprocess.Popen([sys.executable, "-c", FLOW], cwd=toy.root, env=environment, stderr=subprocess.DEVNULL)
    pid_file = toy.root / "pid"
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(pid_file.read_text())
    os.kill(flow.pid, signal.SIGKILL)
    flow.wait(timeout=20)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
    toy.edit("code/second.py", "time.sleep(9)", "pass")
    assert run(toy)["second"] == "ran"
