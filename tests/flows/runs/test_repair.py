"""What DVC leaves half-written when it is killed is put right before the next run, and nothing else is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.runs import repair

Toy = Any
ENTRY = {"cmd": "dvc repro -s second"}


@pytest.fixture
def rwlock(toy: Toy) -> Path:
    path = Path(toy.root / ".dvc/tmp/rwlock")
    path.parent.mkdir(exist_ok=True)
    return path


def noted(pid: int, name: str = "artifacts/second") -> dict[str, Any]:
    """What DVC writes when the process ``pid`` runs a stage."""
    return {"write": {name: {"pid": pid, **ENTRY}}, "read": {"artifacts/first": [{"pid": pid, **ENTRY}]}}


@pytest.fixture
def dvc_command() -> Iterator[int]:
    """A living process that looks like DVC."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc", "repro"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize("cut", [0, 1, 300], ids=["empty", "no last line end", "in the middle"])
def test_a_half_written_dvc_lock_is_replaced_by_its_last_whole_version(toy: Toy, cut: int) -> None:
    path = toy.root / "dvc.lock"
    whole = path.read_bytes()
    repair.keep_lock_file(toy.workspace)
    path.write_bytes(whole[:-cut] if cut else b"")
    repair.keep_lock_file(toy.workspace)  # doesn't take it for the newest version
    (said,) = repair.mend(toy.workspace)
    assert "half-written" in said
    assert path.read_bytes() == whole


def test_stages_that_start_at_the_same_moment_keep_it_side_by_side(toy: Toy) -> None:
    with ThreadPoolExecutor(12) as threads:
        kept = [threads.submit(repair.keep_lock_file, toy.workspace) for _ in range(240)]
    assert [future.exception() for future in kept] == [None] * 240
    (toy.root / "dvc.lock").write_bytes(b"")
    assert repair.mend(toy.workspace)


def test_a_list_that_ends_with_its_title_is_half_written_too(toy: Toy) -> None:
    path = toy.root / "dvc.lock"
    whole = path.read_bytes()
    repair.keep_lock_file(toy.workspace)
    path.write_bytes(whole[: whole.rindex(b"outs:\n") + len(b"outs:\n")])
    assert repair.mend(toy.workspace)
    assert path.read_bytes() == whole


def test_a_whole_dvc_lock_stays_however_it_differs_from_the_last_one(toy: Toy) -> None:
    repair.keep_lock_file(toy.workspace)
    toy.edit("params.yaml", "times: 1", "times: 2")
    toy.repro()
    newer = (toy.root / "dvc.lock").read_bytes()
    assert repair.mend(toy.workspace) == []
    assert (toy.root / "dvc.lock").read_bytes() == newer


def test_a_conflict_in_dvc_lock_is_left_to_the_user(toy: Toy) -> None:
    repair.keep_lock_file(toy.workspace)
    path = toy.root / "dvc.lock"
    conflict = b"<<<<<<< HEAD\n" + path.read_bytes() + b"=======\n>>>>>>> other\n"
    path.write_bytes(conflict)
    assert repair.mend(toy.workspace) == []
    assert path.read_bytes() == conflict


@pytest.mark.parametrize("text", ["", '{"write": {"artifac', "[]"])
def test_a_half_written_record_of_running_commands_is_removed(toy: Toy, rwlock: Path, text: str) -> None:
    rwlock.write_text(text)
    toy.edit("params.yaml", "times: 1", "times: 2")
    assert "half-written" in repair.mend(toy.workspace)[0]
    assert toy.repro("second") == ["second"]


def test_commands_that_are_dead_or_whose_pid_has_gone_to_another_process_block_nothing(toy: Toy, rwlock: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        for pid in (2**22 - 7, other.pid, os.getpid()):
            rwlock.write_text(json.dumps(noted(pid)))
            assert "killed" in repair.mend(toy.workspace)[0]
            assert json.loads(rwlock.read_text()) == {"write": {}, "read": {}}
    finally:
        other.kill()
        other.wait()


def test_a_process_younger_than_the_record_did_not_write_it(toy: Toy, rwlock: Path, dvc_command: int) -> None:
    rwlock.write_text(json.dumps(noted(dvc_command)))
    os.utime(rwlock, (time.time() - 60, time.time() - 60))
    assert repair.mend(toy.workspace)


def test_the_entries_of_living_dvc_commands_stay(toy: Toy, rwlock: Path, dvc_command: int) -> None:
    rwlock.write_text(json.dumps(noted(dvc_command)))
    assert repair.mend(toy.workspace) == []
    assert json.loads(rwlock.read_text()) == noted(dvc_command)


def test_half_written_outputs_are_removed_and_finished_ones_stay(toy: Toy) -> None:
    partial = toy.root / "artifacts/second.partial"
    partial.mkdir()
    (partial / "half").touch()
    repair.mend(toy.workspace)
    assert not partial.exists()
    assert (toy.root / "artifacts/second").exists()
