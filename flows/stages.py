"""Runs stages: each one DVC stage as one Prefect task, in its own process group, its output in the task's log."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait

from components import errors
from components.component import partial_folder
from flows.display import Display
from flows.processes import Process
from flows.repo.workspace import PlannedStage, Workspace

FOLLOW_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # a tracking server that hangs must not hold up the pipeline for longer
Listener = Callable[[list[dict[str, Any]]], None]
"""Takes the new lines of a stage's training history."""


class StageFailed(RuntimeError):
    """A stage ended with an error that isn't the user's; carries the end of its output."""


class NotStarted(RuntimeError):
    """A stage that was waiting for its turn when another failed or the flow was interrupted."""


@dataclass(frozen=True)
class StageResult:
    """How a stage ended: ``ran``, ``restored`` or ``unchanged``."""

    name: str
    outcome: str


def run_stages(
    workspace: Workspace,
    plan: Sequence[PlannedStage],
    display: Display,
    *,
    parallel: int = 1,
    listeners: Mapping[str, Callable[[], contextlib.AbstractContextManager[Listener]]] | None = None,
    checks: Mapping[str, Callable[[], None]] | None = None,
) -> list[StageResult]:
    """Run the planned stages in the graph's order, independent ones side by side if ``parallel`` > 1.

    Call it inside a Prefect flow. A stage starts when those it depends on have ended well. After a failure
    no other stage starts, and the failure is raised when those already running have ended.

    Args:
        listeners: for a stage's name, what takes its training history while it grows.
        checks: for a stage's name, what must hold of its result before any other stage starts on it.

    Raises:
        UserError: a stage refused its input, a gate or a check failed; in their own words.
        StageFailed: anything else.
    """
    upstream = {name: stage.upstream for name, stage in workspace.stages().items()}
    turns = Turns(parallel)
    futures: dict[str, PrefectFuture[StageResult]] = {}
    try:
        for planned in plan:
            waited = [futures[name] for name in upstream[planned.name] if name in futures]
            arguments: dict[str, Any] = {
                "workspace": workspace,
                "planned": planned,
                "display": display,
                "turns": turns,
                "listener": (listeners or {}).get(planned.name),
                "check": (checks or {}).get(planned.name),
            }
            named = run_stage.with_options(name=planned.name)
            futures[planned.name] = named.submit(**arguments, wait_for=waited)
        wait(list(futures.values()))
    except BaseException:
        turns.stop()
        Process.end_all()
        raise
    if turns.failure:
        raise turns.failure
    return [future.result() for future in futures.values()]


class Turns:
    """Hands out ``parallel`` turns to run; none after a failure or an interruption."""

    def __init__(self, parallel: int) -> None:
        self._free = threading.Semaphore(parallel)
        self._stopped = threading.Event()
        self.failure: Exception | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn; what is raised in it stops the stages that still wait.

        Raises:
            NotStarted: there are no more turns.
        """
        with self._free:
            if self.stopped:
                raise NotStarted("not started: the run was stopped before its turn came")
            try:
                yield
            except BaseException as error:
                self.stop()
                if self.failure is None and isinstance(error, Exception):
                    self.failure = error
                raise

    def stop(self) -> None:
        """Give out no more turns."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether there are no more turns."""
        return self._stopped.is_set()


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{planned.name}")
def run_stage(
    workspace: Workspace,
    planned: PlannedStage,
    display: Display,
    turns: Turns,
    listener: Callable[[], contextlib.AbstractContextManager[Listener]] | None = None,
    check: Callable[[], None] | None = None,
) -> StageResult:
    """Bring one stage up to date with ``dvc repro -s``."""
    log = get_run_logger().info
    with turns.turn():
        if planned.action == "skip":
            outcome = "unchanged"
            log(outcome)
        else:
            display.start(planned.name)
            try:
                outcome = _reproduce(workspace.root, planned.name, display, log, listener, turns)
            except BaseException:
                display.finish(planned.name, "failed")
                raise
        display.finish(planned.name, outcome)
        if check:
            check()
    return StageResult(planned.name, outcome)


def _reproduce(
    root: Path,
    name: str,
    display: Display,
    log: Callable[[str], None],
    listener: Callable[[], contextlib.AbstractContextManager[Listener]] | None,
    turns: Turns,
) -> str:
    errors.forget(name, root / errors.ERROR_FOLDER)
    partial = root / partial_folder(Path("artifacts") / name)
    shutil.rmtree(partial, ignore_errors=True)  # a killed run's history would be taken for this one's
    outcomes = {"Running stage": "ran", "is cached - skipping run": "restored", "didn't change, skipping": "unchanged"}
    seen = ["unchanged"]

    def on_line(line: str) -> None:
        log(line)
        if line.strip():
            display.note(name, line.strip())
        seen.extend(outcome for words, outcome in outcomes.items() if words in line)

    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name]
    with contextlib.ExitStack() as stack:
        push = stack.enter_context(listener()) if listener else None
        stack.enter_context(_following(partial / "history.jsonl", name, display, push))
        process = Process(command, root)
        if turns.stopped:  # between our turn and here, when those that ran were ended
            process.end()
        code, tail = process.follow(on_line)
    if code:
        raise _failure(root, name, code, tail)
    return seen[-1]


def _failure(root: Path, name: str, code: int, tail: list[str]) -> Exception:
    """The stage's own error if it left one, else the end of its output."""
    told = errors.recall(name, root / errors.ERROR_FOLDER)
    if told:
        return told
    text = "\n".join(line for line in tail if line.strip())
    full = next(filter(None, (errors.disk_full(RuntimeError(line)) for line in text.splitlines())), None)
    if full:
        return full
    if "No possible cache link types" in text:  # how DVC tells that it could not copy a result into place
        free = shutil.disk_usage(root / "artifacts").free / 1e6
        return errors.no_space(f"DVC could not put the result of {name} in place; {free:,.1f} MB are free.")
    return StageFailed(f"The stage {name} ended with code {code}. The end of its output:\n{text}")


@contextlib.contextmanager
def _following(path: Path, name: str, display: Display, push: Listener | None) -> Iterator[None]:
    """Read a growing history while the stage trains; show it and hand its lines on."""
    done = threading.Event()
    follower = threading.Thread(target=_follow, args=(path, name, display, push, done), daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join(PATIENCE_SECONDS)


def _follow(path: Path, name: str, display: Display, push: Listener | None, done: threading.Event) -> None:
    position, started, last = 0, time.monotonic(), False
    while not last:
        last = done.wait(FOLLOW_SECONDS)
        # The folder is renamed, or removed, when the stage ends; a torn line is for publication to find.
        with contextlib.suppress(OSError, ValueError), path.open(encoding="utf-8") as file:
            file.seek(position)
            whole = file.read().rpartition("\n")[0]
            position += len(whole.encode()) + 1 if whole else 0
            lines = [json.loads(line) for line in whole.splitlines() if line]
            if lines:
                _show(lines[-1], name, display, started)
                if push:
                    push(lines)


def _show(line: dict[str, Any], name: str, display: Display, started: float) -> None:
    step, total = line["step"], line["total_steps"]
    left = (time.monotonic() - started) * (total - step) / max(step, 1)
    loss = line.get("loss", line.get("eval_loss"))
    display.progress(name, step, total, f"{line['phase']}, loss {loss:.3f}, {left:.0f} s left")
