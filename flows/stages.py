"""Runs stages: each one DVC stage as one Prefect task, in its own process group, its output in the task's log."""

from __future__ import annotations

import contextlib
import json
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
from components.errors import UserError
from flows.display import Display
from flows.processes import Process
from flows.workspace import PlannedStage, Workspace

FOLLOW_SECONDS = 1.0
Listener = Callable[[list[dict[str, Any]]], None]
"""Takes the new lines of a stage's training history."""


class StageFailed(RuntimeError):
    """A stage ended with an error that isn't the user's; carries the end of its output."""


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
) -> list[StageResult]:
    """Run the planned stages in the graph's order, independent ones side by side if ``parallel`` > 1.

    Call it inside a Prefect flow. A stage starts when those it depends on have ended well; the first
    failure is raised after the stages already running have ended.

    Raises:
        UserError: a stage refused its input or a gate failed; the stage's own words.
        StageFailed: anything else.
    """
    upstream = {name: stage.upstream for name, stage in workspace.stages().items()}
    free = threading.Semaphore(parallel)
    futures: dict[str, PrefectFuture[StageResult]] = {}
    try:
        for planned in plan:
            waited = [futures[name] for name in upstream[planned.name] if name in futures]
            listener = (listeners or {}).get(planned.name)
            named = run_stage.with_options(name=planned.name)
            arguments: dict[str, Any] = {"planned": planned, "display": display, "free": free, "listener": listener}
            futures[planned.name] = named.submit(workspace=workspace, **arguments, wait_for=waited)
        wait(list(futures.values()))
    except BaseException:
        Process.end_all()
        raise
    _raise_first_failure(list(futures.values()))
    return [future.result() for future in futures.values()]


def _raise_first_failure(futures: list[PrefectFuture[StageResult]]) -> None:
    """The failure that stopped the rest; stages that never started because of it say nothing new."""
    for future in futures:
        if future.state.is_failed() or future.state.is_crashed():
            future.result(raise_on_failure=True)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{planned.name}")
def run_stage(
    workspace: Workspace,
    planned: PlannedStage,
    display: Display,
    free: threading.Semaphore,
    listener: Callable[[], contextlib.AbstractContextManager[Listener]] | None = None,
) -> StageResult:
    """Bring one stage up to date with ``dvc repro -s``."""
    logger = get_run_logger()
    if planned.action == "skip":
        display.finish(planned.name, "unchanged")
        logger.info("unchanged")
        return StageResult(planned.name, "unchanged")
    with free:
        display.start(planned.name)
        try:
            outcome = _reproduce(workspace.root, planned.name, display, logger.info, listener)
        except BaseException:
            display.finish(planned.name, "failed")
            raise
        display.finish(planned.name, outcome)
    return StageResult(planned.name, outcome)


def _reproduce(
    root: Path,
    name: str,
    display: Display,
    log: Callable[[str], None],
    listener: Callable[[], contextlib.AbstractContextManager[Listener]] | None,
) -> str:
    errors.forget(name, root / errors.ERROR_FOLDER)
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
        stack.enter_context(_following(root / "artifacts" / f"{name}.partial" / "history.jsonl", name, display, push))
        code, tail = Process(command, root).follow(on_line)
    if code:
        raise _failure(root, name, code, tail)
    return seen[-1]


def _failure(root: Path, name: str, code: int, tail: list[str]) -> Exception:
    """The stage's own error if it left one, else the end of its output."""
    told = errors.recall(name, root / errors.ERROR_FOLDER)
    if told:
        return told
    text = "\n".join(line for line in tail if line.strip())
    full = errors.disk_full(RuntimeError(text.splitlines()[-1] if text else ""))
    if full or "no space left" in text.lower():
        return full or UserError(f"The disk is full while running {name}.", "Free some space and run again.", "disk")
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
        follower.join()


def _follow(path: Path, name: str, display: Display, push: Listener | None, done: threading.Event) -> None:
    position, started = 0, time.monotonic()
    while True:
        last = done.wait(FOLLOW_SECONDS)
        with contextlib.suppress(OSError), path.open(encoding="utf-8") as file:
            file.seek(position)
            whole = file.read().rpartition("\n")[0]
            position += len(whole.encode()) + 1 if whole else 0
            lines = [json.loads(line) for line in whole.splitlines() if line]
            if lines:
                _show(lines[-1], name, display, started)
                if push:
                    push(lines)
        if last:
            return


def _show(line: dict[str, Any], name: str, display: Display, started: float) -> None:
    step, total = line["step"], line["total_steps"]
    left = (time.monotonic() - started) * (total - step) / max(step, 1)
    loss = line.get("loss", line.get("eval_loss"))
    display.progress(name, step, total, f"{line['phase']}, loss {loss:.3f}, {left:.0f} s left")
