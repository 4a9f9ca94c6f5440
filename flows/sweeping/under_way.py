"""One sweep under way: its jobs as tasks of a Prefect flow, its results into MLflow as they come."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from components.errors import UserError
from flows.repo import keys, lockfile
from flows.repo.choice import Choice
from flows.repo.workspace import PlannedStage, Workspace
from flows.runs.display import Display
from flows.sweeping import results
from flows.sweeping.prepare import Prepared, Project, default_parallel
from flows.sweeping.results import DEFAULT, HEADLINE, Result
from flows.sweeping.schedule import Job, Outcome, Schedule
from flows.tracking.sweeps import CombinationRecord, SweepTracker

KEY_RETRIES = (0.2, 1.0, 3.0)


@dataclass(frozen=True)
class SweepOptions:
    """How to sweep.

    Args:
        metric: what the combinations are ranked by.
        parallel: how many stages may run at once; None: as many as there are cores for.
        name: the sweep's name in MLflow.
        keep: whether the worktrees stay when all is done.
        pull: take from the DVC remote what others have computed.
        push: give each stage's result to the DVC remote.
        headline: the key of the task's headline, which the table shows beside.
    """

    metric: str = DEFAULT
    parallel: int | None = None
    name: str | None = None
    keep: bool = False
    pull: bool = False
    push: bool = False
    headline: str = HEADLINE


@dataclass(frozen=True)
class Swept:
    """What a sweep came to, best first; ``url`` is the parent run's page in MLflow, None when MLflow lacks some."""

    results: list[Result]
    metric: str
    url: str | None


class Run:
    """One sweep under way."""

    def __init__(
        self,
        owner: Workspace,
        prepared: Sequence[Prepared],
        project: Project,
        options: SweepOptions,
        tracker: SweepTracker,
        display: Display,
    ) -> None:
        from flows.runs.turns import Turns

        self.owner, self.project, self.options, self.tracker, self.display = owner, project, options, tracker, display
        self.prepared = {each.combination.number: each for each in prepared}
        # Turns of its own for each combination: a failure stops no other.
        self.turns = {number: Turns(len(each.upstream)) for number, each in self.prepared.items()}
        self.planned: dict[Job, PlannedStage] = {}
        self.results: list[Result] = []
        self.pushes: dict[Job, tuple[Any, Any]] = {}
        self.all_published = True

    def tracked(self, name: str) -> Swept:
        """Run under the sweep's parent in MLflow, as one flow of Prefect."""
        points = [each.combination for each in self.prepared.values()]
        varied = {key: ", ".join(dict.fromkeys(str(point.values[key]) for point in points)) for key in points[0].values}
        url = self.tracker.begin(name, varied)
        try:
            with self.display:
                self._flow(name)
        except BaseException:
            self._end("KILLED")
            raise
        self._end("FINISHED")
        order = results.ranked(self.results, self.options.metric)
        return Swept(order, self.options.metric, url if self.all_published else None)

    def _flow(self, name: str) -> None:
        from prefect import flow

        from flows.runs.flow_runs import watched
        from flows.runs.stopping import STOPPER, Stopped

        @flow(name="sweep", flow_run_name=name.replace("{", "(").replace("}", ")"), validate_parameters=False)
        def run_sweep() -> Any:
            STOPPER.listen()  # Prefect has taken SIGTERM for itself
            try:
                with watched(next(iter(self.prepared.values())).workspace):
                    self._run()
            except Stopped as stopped:
                STOPPER.stopped = stopped
                return stopped.state()

        try:
            run_sweep()
        except BaseException:
            if STOPPER.stopped is None:
                raise
        if STOPPER.stopped is not None:
            raise STOPPER.stopped

    def _run(self) -> None:
        graphs = {number: each.upstream for number, each in self.prepared.items()}
        parallel = self.options.parallel or default_parallel(list(self.prepared.values()))
        try:
            Schedule(graphs, self._key, self._start, parallel, self._finished).run()
        except BaseException as error:
            self._stop(str(error))
            raise
        self._tell_what_was_not_pushed()
        self._show()

    def _stop(self, because: str) -> None:
        """End every process group that we started."""
        from flows.runs.processes import Process

        for turns in self.turns.values():
            turns.stop(because=because or "the sweep ended")
        Process.end_all([process for turns in self.turns.values() for process in turns.processes])

    def _key(self, job: Job) -> str | None:
        """What decides the job's result; None when nothing has to run for it."""
        first = next(planned for planned in self.prepared[job.combination].plan if planned.name == job.stage)
        if first.action == "skip":  # whatever the others do
            self.planned[job] = first
            return None
        for seconds in KEY_RETRIES:
            try:
                return self._look(job)
            except UserError:  # dvc.lock, just when another stage of this combination writes it
                time.sleep(seconds)
        return self._look(job)

    def _look(self, job: Job) -> str | None:
        workspace = self.prepared[job.combination].workspace
        (self.planned[job],) = workspace.plan(Choice(only=(job.stage,)), pull=self.options.pull)
        return None if self.planned[job].action in ("skip", "restore") else keys.present(workspace, job.stage)

    def _start(self, job: Job, ended: Callable[[Outcome], None]) -> None:
        from flows.runs import retries
        from flows.stages import run_stage

        each, label = self.prepared[job.combination], f"{job.combination} {job.stage}"
        if self.planned[job].action == "skip":
            self.display.finish(label, "unchanged")
            ended("unchanged")
            return
        named = run_stage.with_options(name=label, task_run_name=label, **retries.settings())
        future = named.submit(
            each.workspace,
            self.planned[job],
            _Labelled(self.display, job.combination),
            self.turns[job.combination],
            pull=self.options.pull,
        )
        if self.options.push:
            self.pushes[job] = (future, self._push_when_done(job, future))
        future.add_done_callback(lambda done: ended(_outcome(done)))

    def _push_when_done(self, job: Job, stage: Any) -> Any:
        """A task that is tried again after a fault of the remote, while other stages run."""
        from flows.runs import retries
        from flows.stages import push_stage

        label = f"push {job.combination} {job.stage}"
        named = push_stage.with_options(name=label, task_run_name=label, **retries.settings())
        arguments: dict[str, Any] = {
            "workspace": self.prepared[job.combination].workspace,
            "stage": job.stage,
            "turns": self.turns[job.combination],
        }
        return named.submit(**arguments, wait_for=[stage])

    def _tell_what_was_not_pushed(self) -> None:
        """The results are here; others miss them."""
        for job, (stage, push) in self.pushes.items():
            error = push.result(raise_on_failure=False) if stage.state.is_completed() else None
            if isinstance(error, Exception):
                told = escape(str(error) or type(error).__name__)
                self.display.say(f"  [yellow]![/] push {job.combination} {job.stage}: {told}")

    def _finished(self, number: int, failure: BaseException | None, outcomes: Mapping[str, str]) -> None:
        each = self.prepared[number]
        reason = f"{failure}" or type(failure).__name__ if failure else None
        metrics: Mapping[str, float] = {}
        if reason is None:
            try:
                metrics = self.project.metrics(each.workspace.root)
            except (OSError, ValueError, KeyError) as error:
                reason = f"its metrics could not be read: {error}"
        self.results.append(Result(each.combination, metrics, reason, dict(outcomes)))
        if reason:
            self.display.say(
                f"  [red]✗[/] {number} {escape(each.combination.label)}: {escape(results.first_words(reason))}"
            )
        self.all_published &= self.tracker.add(_record(each, self.results[-1]))

    def _table(self) -> str:
        return results.markdown(self.results, self.options.metric, self.options.headline) if self.results else ""

    def _show(self) -> None:
        """The table as a Prefect artifact of this flow run."""
        from prefect.artifacts import create_markdown_artifact

        with contextlib.suppress(Exception):  # it stands in the terminal and in MLflow as well
            create_markdown_artifact(self._table(), key="sweep", description="The combinations, best first")

    def _end(self, status: str) -> None:
        order = results.ranked(self.results, self.options.metric)
        best = order[0].metrics if order and not order[0].failure else {}
        ending = threading.Thread(target=self.tracker.end, args=(self._table(), best, status), daemon=True)
        ending.start()
        ending.join(3.0 if status == "KILLED" else None)  # a tracking server must not hold up an interruption


class _Labelled(Display):
    """A display in which every stage has its combination's number in front."""

    def __init__(self, display: Display, number: int) -> None:
        self.console, self._inner, self._number = display.console, display, number

    def say(self, text: str) -> None:
        self._inner.say(text)

    def start(self, name: str) -> None:
        self._inner.start(f"{self._number} {name}")

    def progress(self, name: str, *rest: Any) -> None:
        self._inner.progress(f"{self._number} {name}", *rest)

    def note(self, name: str, text: str) -> None:
        self._inner.note(f"{self._number} {name}", text)

    def finish(self, name: str, *rest: Any) -> None:
        self._inner.finish(f"{self._number} {name}", *rest)


def _outcome(future: Any) -> Outcome:
    try:
        return str(future.result().outcome)
    except BaseException as error:
        return error


def _record(each: Prepared, result: Result) -> CombinationRecord:
    workspace = each.workspace
    return CombinationRecord(
        name=each.combination.label[:200],
        digest=lockfile.digest(dict(each.combination.values)),
        values=each.combination.values,
        metrics=result.metrics,
        lock_digest=workspace.lock_digest(),
        git_commit=workspace.git_commit() or "none",
        data_hash=workspace.data_hash() or "none",
        failure=result.failure,
    )
