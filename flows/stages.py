"""Runs stages: each one DVC stage as one Prefect task, in its own process group, its output in the task's log."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Cancelled
from rich.markup import escape

from components import errors
from components.component import partial_folder
from flows.repo import checkpoints, integrity, remotes, timings
from flows.repo.workspace import PlannedStage, Workspace
from flows.runs import repair, retries
from flows.runs.display import Display
from flows.runs.failures import failure
from flows.runs.following import Listener, following
from flows.runs.options import RunOptions
from flows.runs.processes import Process
from flows.runs.stopping import Stopped
from flows.runs.turns import NotStarted, Turns

log = logging.getLogger(__name__)
OUTCOMES = {"Running stage": "ran", "is cached - skipping run": "restored", "didn't change, skipping": "unchanged"}
"""What DVC says of a stage, and the outcome that it means."""
Listening = Callable[[], contextlib.AbstractContextManager[Listener]]


@dataclass(frozen=True)
class StageResult:
    """How a stage ended: ``ran``, ``restored`` or ``unchanged``; ``warning`` says that it could not be shared."""

    name: str
    outcome: str
    warning: str | None = None


def run_stages(
    workspace: Workspace,
    plan: Sequence[PlannedStage],
    display: Display,
    options: RunOptions | None = None,
    *,
    listeners: Mapping[str, Listening] | None = None,
    checks: Mapping[str, Callable[[], None]] | None = None,
) -> list[StageResult]:
    """Run the planned stages in the graph's order, independent ones side by side if ``options.parallel`` > 1.

    Call it inside a Prefect flow. A stage starts when those it depends on have ended well. After a failure
    no other stage starts, and the failure is raised when those already running have ended.

    Args:
        listeners: for a stage's name, what takes its training history while it grows.
        checks: for a stage's name, what must hold of its result before any other stage starts on it.

    Raises:
        UserError: a stage refused its input, a gate or a check failed; in their own words.
        StageFailed: anything else.
    """
    options = _with_remote(workspace, options or RunOptions())
    _discard_wrong_listings(workspace, plan, display)
    turns = Turns(options.parallel)
    futures: dict[str, PrefectFuture[StageResult]] = {}
    pushes: dict[str, PrefectFuture[int]] = {}
    try:
        for name, before in _upstream(workspace, plan).items():
            arguments: dict[str, Any] = {
                "workspace": workspace,
                "planned": next(planned for planned in plan if planned.name == name),
                "display": display,
                "turns": turns,
                "pull": options.pull,
                "listening": (listeners or {}).get(name),
                "check": (checks or {}).get(name),
            }
            named = run_stage.with_options(name=name, **retries.settings())
            futures[name] = named.submit(**arguments, wait_for=[futures[other] for other in before])
            if options.push:
                pushes[name] = _push_when_done(workspace, name, turns, futures[name])
        wait(list[PrefectFuture[Any]]([*futures.values(), *pushes.values()]))
    except BaseException as error:
        if isinstance(error, Stopped):
            error.during = error.during or turns.running
        turns.stop(because=str(error))
        Process.end_all(turns.processes)
        raise
    if turns.failure:
        raise turns.failure
    warnings = {name: _not_pushed(name, future) for name, future in pushes.items()}
    return [replace(future.result(), warning=warnings.get(name)) for name, future in futures.items()]


def _upstream(workspace: Workspace, plan: Sequence[PlannedStage]) -> dict[str, list[str]]:
    """For each planned stage the planned ones that it waits for."""
    stages, planned = workspace.stages(), [each.name for each in plan]
    return {name: [other for other in planned if other in stages[name].upstream] for name in planned}


def _push_when_done(
    workspace: Workspace, name: str, turns: Turns, stage: PrefectFuture[StageResult]
) -> PrefectFuture[int]:
    arguments: dict[str, Any] = {"workspace": workspace, "stage": name, "turns": turns}
    named = push_stage.with_options(name=f"push {name}", **retries.settings())
    future: PrefectFuture[int] = named.submit(**arguments, wait_for=[stage])
    return future


def _discard_wrong_listings(workspace: Workspace, plan: Sequence[PlannedStage], display: Display) -> None:
    if any(planned.action != "skip" for planned in plan):
        for name in integrity.discard_wrong_listings(workspace):
            display.say(f"  [yellow]![/] DVC's cache held a damaged list of files, {name}; it is removed.")


def _with_remote(workspace: Workspace, options: RunOptions) -> RunOptions:
    """The options, without sharing where no DVC remote is set."""
    if (options.pull or options.push) and remotes.remote(workspace) is None:
        return replace(options, pull=False, push=False)
    return options


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{planned.name}")
def run_stage(
    workspace: Workspace,
    planned: PlannedStage,
    display: Display,
    turns: Turns,
    pull: bool = False,
    listening: Listening | None = None,
    check: Callable[[], None] | None = None,
) -> StageResult | State[Any]:
    """Bring one stage up to date with ``dvc repro -s``."""
    stage = _Stage(workspace, planned, display, turns, pull, listening)
    try:
        retries.pause(turns.sleep)
        with turns.turn(planned.name, retries.will_retry):
            outcome = stage.bring_up_to_date()
            if check:
                check()
    except Exception:
        if turns.because:  # stopped from without: no failure of the stage
            return Cancelled(message=turns.because)
        raise
    return StageResult(planned.name, outcome)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="push {stage}")
def push_stage(workspace: Workspace, stage: str, turns: Turns) -> int:
    """Give the DVC remote the results of a stage, while the next ones run."""
    retries.pause(turns.sleep)
    new = remotes.push_stage(workspace, stage)
    get_run_logger().info("%d files were new there", new)
    return new


def _not_pushed(name: str, future: PrefectFuture[int]) -> str | None:
    """The warning when a push failed in the end: the results are here, and the next run tries again."""
    found = future.result(raise_on_failure=False)
    return f"push {name}: {found}" if isinstance(found, Exception) else None


@dataclass
class _Stage:
    """One attempt at a stage."""

    workspace: Workspace
    planned: PlannedStage
    display: Display
    turns: Turns
    pull: bool
    listening: Listening | None

    @property
    def name(self) -> str:
        return self.planned.name

    def bring_up_to_date(self) -> str:
        """Run, restore or leave the stage; the outcome."""
        outcome = "unchanged"
        if self.planned.action == "skip":
            get_run_logger().info(outcome)
            _afterwards(self.workspace, self.planned, outcome)
        else:
            self.display.start(self.name)
            started = time.monotonic()
            try:
                outcome = self._reproduce()
            except BaseException as error:
                self._tell(error)
                raise
            _afterwards(self.workspace, self.planned, outcome, time.monotonic() - started)
        self.display.finish(self.name, outcome)
        return outcome

    def _reproduce(self) -> str:
        """A restored result is compared with its hashes; what is wrong is made anew."""
        if self.pull and not self.turns.remote_away:
            self._pull()
        for _ in range(2):
            outcome = self._repro()
            wrong = integrity.discard_damaged(self.workspace, self.name) if outcome == "restored" else []
            if not wrong:
                return outcome
            self._say(f"DVC's cache held other bytes than it should for {', '.join(wrong)}; they are made anew.")
        raise errors.UserError(
            f"{', '.join(wrong)} came out of DVC's cache with other bytes than were put there, twice.",
            "Check the disk.",
            kind="disk",
        )

    def _tell(self, error: BaseException) -> None:
        again = retries.will_retry(error) and not self.turns.stopped
        if again:
            get_run_logger().warning("%s", error)
        outcome = "stopped" if self.turns.because else "failed"
        self.display.finish(self.name, outcome, "trying again soon" if again else "")

    def _pull(self) -> None:
        """Get what the remote has of the stage. Tried twice; then the run goes on without the remote."""
        try:
            remotes.pull_stage(self.workspace, self.name)
        except errors.UserError as error:
            if not retries.transient(error) or (retries.attempt() < 2 and retries.will_retry(error)):
                raise
            self.turns.remote_away = True
            self._say(f"{error.message} What it may hold is computed here.")

    def _repro(self) -> str:
        """``dvc repro -s``; the outcome."""
        root = self.workspace.root
        errors.forget(self.name, root / errors.ERROR_FOLDER)
        partial_output = root / partial_folder(Path("artifacts") / self.name)
        shutil.rmtree(partial_output, ignore_errors=True)  # a killed run's history would be taken for this one's
        repair.keep_lock_file(self.workspace)
        seen = ["unchanged"]
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", self.name]
        with contextlib.ExitStack() as stack:
            push = stack.enter_context(self.listening()) if self.listening else None
            history = partial_output / "history.jsonl"
            stack.enter_context(following(history, self.name, self.display, push, self.turns))
            process = Process(command, root)
            self.turns.started(process)
            code, tail = process.follow(partial(self._on_line, seen, get_run_logger().info))
        if code:
            raise failure(root, self.name, code, tail)
        return seen[-1]

    def _on_line(self, seen: list[str], info: Callable[[str], None], line: str) -> None:
        info(line)
        if line.strip():
            self.display.note(self.name, line.strip())
        seen.extend(outcome for words, outcome in OUTCOMES.items() if words in line)

    def _say(self, text: str) -> None:
        get_run_logger().warning(text)
        self.display.say(f"  [yellow]![/] {escape(text)}")


def _afterwards(workspace: Workspace, planned: PlannedStage, outcome: str, seconds: float = 0.0) -> None:
    """What helps later runs. The stage has ended well; nothing that goes wrong here may change that."""
    told = "resumed" if planned.action == "resume" and outcome == "ran" else outcome
    for helpful in (
        lambda: repair.keep_lock_file(workspace),
        lambda: timings.add(workspace, planned.name, told, seconds),
        lambda: checkpoints.clean(workspace, [planned.name]),
    ):
        try:
            helpful()
        except Exception as error:
            log.warning("after %s: %s", planned.name, error)


__all__ = ["Listener", "NotStarted", "StageResult", "Turns", "run_stages"]
