"""Which stage of which combination runs when: equal work once, in parallel up to a limit, failures apart."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Outcome = str | BaseException
Graph = Mapping[str, set[str]]
"""For each stage, in topological order, the stages that it needs."""


@dataclass(frozen=True)
class Job:
    """One stage of one combination."""

    combination: int
    stage: str


@dataclass
class Schedule:
    """Runs the jobs of all combinations.

    A job whose key is that of a job under way waits until that one has ended: then its result is there to be
    restored, or it would fail as well. A failed combination starts no further job; the others go on.

    Args:
        graphs: each combination's stages.
        key: what decides a job's result, asked for when the jobs that it needs are done; None: nothing to share.
        start: begins a job in the background; is given what takes its outcome, an exception when it failed.
        parallel: how many jobs may run at once.
        finished: told once of each combination, with its failure or None, and with the outcome of each stage.
    """

    graphs: Mapping[int, Graph]
    key: Callable[[Job], str | None]
    start: Callable[[Job, Callable[[Outcome], None]], None]
    parallel: int
    finished: Callable[[int, BaseException | None, Mapping[str, str]], None]
    _done: dict[int, dict[str, str]] = field(default_factory=dict)
    _keys: dict[Job, str | None] = field(default_factory=dict)
    _running: set[Job] = field(default_factory=set)
    _failures: dict[int, BaseException] = field(default_factory=dict)
    _failed_keys: dict[str, BaseException] = field(default_factory=dict)
    _told: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Run until nothing is left to do."""
        ended: queue.SimpleQueue[tuple[Job, Outcome]] = queue.SimpleQueue()
        self._done = {number: {} for number in self.graphs}
        while True:
            for job in self._ready():
                if len(self._running) >= self.parallel:
                    break
                self._begin(job, ended)
            self._tell()
            if not self._running:
                return
            self._end(*ended.get())

    def _ready(self) -> list[Job]:
        """The jobs whose inputs are there, those of the first combinations first: their results come early."""
        return [
            Job(number, stage)
            for number, graph in self.graphs.items()
            for stage, needs in graph.items()
            if stage not in self._done[number] and needs <= self._done[number].keys()
            if Job(number, stage) not in self._running
        ]

    def _begin(self, job: Job, ended: queue.SimpleQueue[tuple[Job, Outcome]]) -> None:
        if job.combination in self._failures:
            return
        try:
            key = self._keys[job] if job in self._keys else self.key(job)
        except Exception as error:
            self._failures[job.combination] = error
            return
        self._keys[job] = key
        if key is not None and key in self._failed_keys:
            self._failures[job.combination] = self._failed_keys[key]
        elif key is None or key not in {self._keys[running] for running in self._running}:
            self._running.add(job)
            self.start(job, lambda outcome: ended.put((job, outcome)))

    def _end(self, job: Job, outcome: Outcome) -> None:
        self._running.remove(job)
        if isinstance(outcome, str):
            self._done[job.combination][job.stage] = outcome
            return
        self._failures.setdefault(job.combination, outcome)
        if key := self._keys[job]:
            self._failed_keys[key] = outcome

    def _tell(self) -> None:
        """Report the combinations that are through: all their stages done, or failed and nothing of them runs."""
        busy = {job.combination for job in self._running}
        for number, graph in self.graphs.items():
            failure = self._failures.get(number)
            through = failure is not None or len(self._done[number]) == len(graph)
            if through and number not in busy | self._told:
                self._told.add(number)
                self.finished(number, failure, self._done[number])
