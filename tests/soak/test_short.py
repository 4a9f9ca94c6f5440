"""A short course of the faults that `make soak` injects by the hundred, on the torch-free project."""

from __future__ import annotations

import random
import signal

import pytest

from tests.soak import faults
from tests.soak.faults import Attack, Tally
from tests.soak.main import undisturbed
from tests.soak.projects import make_toy


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Attack:
    """A project that has run in peace."""
    folder = tmp_path_factory.mktemp("soak")
    project = make_toy(folder / "toy", seconds=0.2)
    project.environment["PREFECT_API_URL"] = prefect_api
    return undisturbed(project, folder, random.Random(13), Tally())


def test_kills_in_every_kind_of_process_end_in_the_right_result(attack: Attack) -> None:
    faults.forget_results(attack)
    for target in ("stage", "dvc", "supervisor", "flow"):
        faults.kill_somewhere(attack, target, faults.unfinished(attack)[0], longest=0.05)
    assert attack.tally.kills() >= 3  # under load one may come too late
    attack.finish()


def test_an_interrupted_run_ends_within_ten_seconds_and_says_so(attack: Attack) -> None:
    faults.forget_results(attack)
    faults.interrupt(attack, signal.SIGTERM, "wide01", "4")


def test_a_full_disk_is_told_and_leaves_nothing_half_written(attack: Attack) -> None:
    faults.full_disk(attack, 0.05)


def test_a_cache_that_can_not_be_written_is_told(attack: Attack) -> None:
    faults.read_only_cache(attack)


def test_wrong_bytes_in_the_cache_never_become_a_result(attack: Attack) -> None:
    faults.corrupted_cache(attack)


def test_of_two_runs_at_once_one_works_and_the_other_is_told(attack: Attack) -> None:
    faults.two_at_once(attack)


@pytest.mark.parametrize("name", ["dvc.lock", ".dvc/tmp/rwlock"])
def test_a_file_torn_by_a_kill_is_put_right_or_told(attack: Attack, name: str) -> None:
    faults.torn_file(attack, name)
