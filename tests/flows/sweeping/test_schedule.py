"""The order of a sweep's jobs, on made-up jobs that end when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from flows.sweeping.schedule import Job, Outcome, Schedule

GRAPH = {"first": set[str](), "second": {"first"}, "third": {"second"}, "side": set[str]()}


@dataclass
class Made:
    """Jobs with given keys and failures, run in threads; what started, and how many ran at once."""

    keys: Mapping[Job, str]
    failing: set[Job] = field(default_factory=set)
    started: list[Job] = field(default_factory=list)
    cached: set[str] = field(default_factory=set)
    ran: list[Job] = field(default_factory=list)
    most: int = 0
    running: int = 0
    told: dict[int, tuple[str | None, dict[str, str]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, job: Job, ended: Callable[[Outcome], None]) -> None:
        with self.lock:
            self.started.append(job)
            self.running += 1
            self.most = max(self.most, self.running)
        threading.Timer(0.02, self.end, (job, ended)).start()

    def end(self, job: Job, ended: Callable[[Outcome], None]) -> None:
        with self.lock:
            self.running -= 1
            known = self.keys[job] in self.cached
            if not known:
                self.ran.append(job)
            if job not in self.failing:
                self.cached.add(self.keys[job])
        ended(ValueError(f"{job.stage} failed") if job in self.failing else "restored" if known else "ran")

    def finished(self, number: int, failure: BaseException | None, outcomes: Mapping[str, str]) -> None:
        assert number not in self.told
        self.told[number] = (str(failure) if failure else None, dict(outcomes))

    def run(self, parallel: int, count: int) -> None:
        graphs = dict.fromkeys(range(1, count + 1), GRAPH)
        Schedule(graphs, self.keys.get, self.start, parallel, self.finished).run()


def keys(count: int, own: set[str]) -> dict[Job, str]:
    """Every combination shares the stages but for those in ``own``."""
    return {
        Job(number, stage): f"{stage} {number if stage in own else ''}"
        for number in range(1, count + 1)
        for stage in GRAPH
    }


@pytest.mark.parametrize("parallel", [1, 3, 20])
def test_equal_jobs_run_once_whatever_runs_side_by_side(parallel: int) -> None:
    made = Made(keys(4, {"second", "third"}))
    made.run(parallel, 4)
    assert len(made.started) == 16
    assert len(made.ran) == len(set(made.keys.values())) == 10
    assert made.most <= parallel
    assert {failure for failure, _ in made.told.values()} == {None}


def test_a_job_starts_when_those_it_needs_are_done() -> None:
    made = Made(keys(2, {"first"}))
    made.run(3, 2)
    for number in (1, 2):
        order = [job.stage for job in made.started if job.combination == number]
        assert [stage for stage in order if stage != "side"] == ["first", "second", "third"]


def test_results_of_the_first_combination_come_first() -> None:
    made = Made(keys(3, set(GRAPH)))
    made.run(1, 3)
    assert list(made.told) == [1, 2, 3]


def test_a_failure_ends_its_combination_and_no_other() -> None:
    made = Made(keys(3, {"second", "third"}), failing={Job(2, "second")})
    made.run(2, 3)
    assert made.told[2][0] == "second failed"
    assert "third" not in made.told[2][1]
    assert [made.told[number][0] for number in (1, 3)] == [None, None]


def test_what_failed_once_is_not_tried_by_the_others() -> None:
    made = Made(keys(3, set()), failing={Job(1, "first")})
    made.run(3, 3)
    assert [job for job in made.started if job.stage == "first"] == [Job(1, "first")]
    assert {failure for failure, _ in made.told.values()} == {"first failed"}


def test_a_key_that_cannot_be_told_fails_its_combination() -> None:
    made = Made(keys(2, set(GRAPH)))

    def key(job: Job) -> str:
        if job == Job(1, "second"):
            raise ValueError("no key")
        return made.keys[job]

    Schedule({1: GRAPH, 2: GRAPH}, key, made.start, 2, made.finished).run()
    assert made.told[1][0] == "no key"
    assert made.told[2][0] is None


def test_an_interruption_leaves_at_once() -> None:
    def start(job: Job, ended: Callable[[Outcome], None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Schedule({1: GRAPH}, lambda _: None, start, 1, lambda *_: None).run()
