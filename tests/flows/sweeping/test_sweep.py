"""A sweep of a torch-free graph: common stages once, failures apart, ranked, interrupted and repeated."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from components.errors import UserError
from flows.repo import overrides, worktrees
from flows.repo.workspace import Workspace
from flows.sweeping import prepare
from flows.sweeping.grid import parse
from flows.sweeping.prepare import Project

Toy = Any
# `second` notes each run of it outside the repository, and refuses to write a text three times.
COUNTED = """
ran = Path({log!r})
ran.open('a').write('second\\n')
if times == 3:
    raise SystemExit('three is too many')
"""


def opened(owner: Workspace, values: Mapping[str, Any], name: str) -> Workspace:
    text = overrides.edit((owner.root / "params.yaml").read_text(encoding="utf-8"), values)
    return worktrees.open_worktree(owner, name, replacing={"params.yaml": text})


def metrics(root: Path) -> dict[str, float]:
    return {"toy/loss": 100.0 - len((root / "artifacts/join").read_bytes()), "toy/accuracy": 0.5}


PROJECT = Project(open=opened, check=lambda *_: None, metrics=metrics)


@pytest.fixture
def counted(toy: Toy) -> Toy:
    """A finished toy whose `second` writes a line for each of its runs."""
    toy.edit("code/second.py", "(here / 'second')", COUNTED.format(log=str(log(toy))) + "(here / 'second')")
    toy.repro()
    log(toy).unlink()
    toy.git("commit", "--quiet", "--all", "-m", "counted")
    return toy


def log(toy: Toy) -> Path:
    return Path(toy.root).parent / "runs.log"


def runs(toy: Toy) -> int:
    return len(log(toy).read_text().splitlines()) if log(toy).exists() else 0


def mlflow(toy: Toy, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(toy.root / ".stillhouse/mlflow/mlflow.db")) as connection:
        return connection.execute(query).fetchall()


def test_the_plan_tells_how_many_stage_runs_are_shared_and_leaves_nothing(counted: Toy) -> None:
    from flows.sweeping.sweep import foresee

    grid = parse(["second.times=1,2", "second.unused=0,5", "first.words.keep=2,1"])
    prepared = foresee(counted.workspace, grid, PROJECT)
    assert len(prepared) == 8
    found = {need.stage: (need.to_run, need.there) for need in prepare.needs(prepared)}
    assert found == {"first": (1, 1), "second": (3, 1), "join": (3, 1), "other": (0, 1)}
    assert runs(counted) == 0
    assert not list((counted.root / ".stillhouse/worktrees").glob("sweep*"))


def test_every_wrong_combination_is_told_before_anything_runs(counted: Toy) -> None:
    from flows.sweeping.sweep import foresee

    def check(workspace: Workspace, _plan: object) -> None:
        if "times: 9" in (workspace.root / "params.yaml").read_text():
            raise UserError("nine is too many", "less", "parameters")

    project = Project(open=opened, check=check, metrics=metrics)
    with pytest.raises(
        UserError, match=r"second.times=9 second.unused=0:\n  nine is too many\nsecond.times=9"
    ) as caught:
        foresee(counted.workspace, parse(["second.times=2,9", "second.unused=0,1"]), project)
    assert caught.value.kind == "parameters"
    assert runs(counted) == 0


@pytest.mark.usefixtures("prefect_server")
class TestSweep:
    """In one class, so that one server serves all."""

    def sweep(self, toy: Toy, *grid: str, **options: Any) -> Any:
        from flows.sweeping.sweep import sweep
        from flows.sweeping.under_way import SweepOptions

        options = {"metric": "toy/loss", "parallel": 3} | options
        console = Console(quiet=True)
        return sweep(toy.workspace, parse(grid), "toy", SweepOptions(**options), console=console, project=PROJECT)

    def test_common_stages_run_once_failures_stay_apart_and_the_best_stands_first(self, counted: Toy) -> None:
        before = {path: (counted.root / path).read_bytes() for path in ("params.yaml", "dvc.lock", "artifacts/join")}
        swept = self.sweep(counted, "second.times=2,3", "second.unused=0,5")
        assert runs(counted) == 2  # two values, each in two combinations
        best, *_ = swept.results
        assert best.combination.values["second.times"] == 2
        assert [result.failure is None for result in swept.results] == [True] * 2 + [False] * 2
        assert all("three is too many" in result.failure for result in swept.results[2:])
        outcomes = [result.outcomes for result in swept.results[:2]]
        assert sorted(each["second"] for each in outcomes) == ["ran", "restored"]
        assert before == {path: (counted.root / path).read_bytes() for path in before}
        assert not list((counted.root / ".stillhouse/worktrees").glob("sweep*"))
        assert mlflow(counted, "SELECT status, count(*) FROM runs GROUP BY status ORDER BY 1") == [
            ("FAILED", 2),
            ("FINISHED", 3),
        ]
        first_runs = mlflow(counted, "SELECT run_uuid FROM runs ORDER BY 1")
        again = self.sweep(counted, "second.unused=0,5", "second.times=2,3")
        assert runs(counted) == 3  # what failed is tried again, once for both combinations
        assert len(again.results) == 4
        assert mlflow(counted, "SELECT run_uuid FROM runs ORDER BY 1") == first_runs
        ((note,),) = mlflow(counted, "SELECT value FROM tags WHERE key = 'mlflow.note.content'")
        assert note.splitlines()[2].startswith("| 1 | ")
        assert "three is too many" in note

    def test_a_sweep_under_way_keeps_the_same_one_from_starting(self, counted: Toy) -> None:
        from flows.sweeping.sweep import _digest

        grid = ["second.times=2"]
        name = f"sweep-{_digest(counted.workspace, parse(grid))[:8]}-1"
        worktree = opened(counted.workspace, {"second.times": 2}, name)
        with (worktree.state / "run.lock").open("a") as lock:  # as another process would hold it
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(UserError) as caught:
                self.sweep(counted, *grid)
        assert caught.value.kind == "busy"
        assert runs(counted) == 0

    def test_a_push_that_fails_is_tried_again_and_then_told_and_fails_no_combination(
        self, counted: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flows.repo import remotes
        from flows.sweeping.sweep import sweep
        from flows.sweeping.under_way import SweepOptions

        tried: list[str] = []

        def away(_workspace: Any, stage: str) -> int:
            tried.append(stage)
            if stage == "second" or tried.count("join") == 1:
                raise UserError(f"{stage}: the [remote] is away", "", "remote")
            return 1

        monkeypatch.setattr(remotes, "push_stage", away)
        monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0.1")
        output = io.StringIO()
        console, options = Console(file=output, width=200), SweepOptions("toy/loss", 3, push=True)
        swept = sweep(counted.workspace, parse(["second.times=2,4"]), "toy", options, console=console, project=PROJECT)
        assert [result.failure for result in swept.results] == [None, None]
        assert tried.count("second") == 4
        shown = output.getvalue()
        for number in (1, 2):
            assert f"push {number} second: second: the [remote] is away" in shown
        assert "join: the" not in shown

    def test_every_worktree_is_locked_and_mended(self, counted: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows.runs import repair, run_lock
        from flows.sweeping import under_way

        mended: list[bool] = []
        monkeypatch.setattr(repair, "mend", lambda place: mended.append(run_lock.held(place) is not None) or [])
        monkeypatch.setattr(under_way.Run, "tracked", lambda run, _: len(run.prepared))
        assert self.sweep(counted, "second.times=2,4") == 2
        assert mended == [True, True]

    def test_an_interrupted_sweep_leaves_no_process_and_goes_on_where_it_stopped(self, counted: Toy) -> None:
        counted.edit("code/second.py", "if times == 3:", "import time\nif times == 3 and Path('../slow').exists():")
        counted.edit("code/second.py", "raise SystemExit('three is too many')", "time.sleep(300)")
        slow = counted.root / ".stillhouse/worktrees/slow"
        slow.parent.mkdir(parents=True)
        slow.touch()
        code = "import sys; from tests.flows.sweeping.test_sweep import interrupted; interrupted(sys.argv[1])"
        command = [sys.executable, "-c", code, str(counted.root)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweeping:
            wait_until(lambda: runs(counted) == 3)  # 1 is run again for its code, 2 and 3 are new
            time.sleep(1)
            sweeping.send_signal(signal.SIGINT)
            assert sweeping.wait(15) == 130
        assert not processes_below(counted.root)
        assert mlflow(counted, "SELECT status, count(*) FROM runs GROUP BY status ORDER BY 1")[-1] == ("KILLED", 1)
        slow.unlink()
        swept = self.sweep(counted, "second.times=1,2,3")
        assert runs(counted) == 4
        assert not [result.failure for result in swept.results if result.failure]
        assert [result.combination.values["second.times"] for result in swept.results] == [3, 2, 1]
        parents = "SELECT count(*) FROM runs WHERE name LIKE 'sweep %'"
        assert mlflow(counted, parents) == [(1,)]


ROOT = Path(__file__).parents[3]


def interrupted(root: str) -> None:
    """The sweep of the test above, in a process of its own."""
    from flows.sweeping.sweep import sweep
    from flows.sweeping.under_way import SweepOptions

    os.chdir(root)
    try:
        grid = parse(["second.times=1,2,3"])
        sweep(Workspace(Path(root)), grid, "toy", SweepOptions("toy/loss", parallel=3), project=PROJECT)
    except KeyboardInterrupt:
        sys.exit(130)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert true()


def processes_below(folder: Path) -> set[int]:
    """Our processes whose working folder is inside ``folder``."""
    inside = f"{folder.resolve()}/"
    found = psutil.process_iter(["cwd"])
    return {process.pid for process in found if f"{process.info['cwd']}/".startswith(inside)}
