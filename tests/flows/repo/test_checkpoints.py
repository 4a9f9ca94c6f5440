"""Where a stage would go on, and which checkpoints are removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components import keeping
from flows.repo import acceptances
from flows.repo.checkpoints import Checkpoint, clean, resumable
from tests.flows.repo.conftest import ROOT, Trains


def place(found: Checkpoint | None) -> tuple[int, int] | None:
    return None if found is None else (found.step, found.total)


def test_a_stage_goes_on_at_its_last_whole_checkpoint(trains: Trains) -> None:
    assert resumable(trains.workspace, "teacher") is None
    folder = trains.train(step=10)
    trains.train(place="checkpoint-20", step=20)
    found = resumable(trains.workspace, "teacher")
    assert found == Checkpoint("teacher", folder.name, 20, 40)
    (folder / "0-general/checkpoint-20/model.safetensors").write_bytes(b"cut")
    assert place(resumable(trains.workspace, "teacher")) == (10, 40)
    (folder / "0-general/checkpoint-10/whole.json").unlink()
    assert resumable(trains.workspace, "teacher") is None


def test_finished_phases_count(trains: Trains) -> None:
    trains.train("0-general", "finished", 25)
    assert place(resumable(trains.workspace, "teacher")) == (25, 40)
    trains.train("1-specific", "checkpoint-10", 35)
    assert place(resumable(trains.workspace, "teacher")) == (35, 40)


def test_the_models_of_one_stage_count_together(trains: Trains) -> None:
    trains.train("seed-14/student/0-distill", "finished", 40)
    trains.train("seed-14/lora/0-specific", "checkpoint-10", 10, total=20)
    assert place(resumable(trains.workspace, "teacher")) == (50, 60)


def test_with_other_inputs_it_would_start_anew(trains: Trains) -> None:
    trains.train()
    trains.edit()
    assert resumable(trains.workspace, "teacher") is None
    trains.edit("# An edit.\n", "")
    assert place(resumable(trains.workspace, "teacher")) == (10, 40)
    (trains.root / "artifacts/validate/schema.json").unlink()
    assert resumable(trains.workspace, "teacher") is None


@pytest.mark.parametrize(("old", "new"), [("every: 100", "every: 0"), ("seed: 13", "sead: 13")])
def test_parameters_that_keep_none_or_are_wrong_resume_nothing(old: str, new: str, trains: Trains) -> None:
    trains.train()
    trains.edit(old, new, "params.yaml")
    assert resumable(trains.workspace, "teacher") is None


def test_stages_that_do_not_train_are_not_resumed(trains: Trains) -> None:
    assert resumable(trains.workspace, "validate") is None
    assert resumable(trains.workspace, "no such stage") is None


def test_the_checkpoint_of_a_finished_stage_goes_and_those_of_other_inputs_stay(trains: Trains) -> None:
    other = trains.train()
    trains.edit("seed: 13", "seed: 14", "params.yaml")
    mine = trains.train()
    assert clean(trains.workspace, []) == []
    assert clean(trains.workspace, ["teacher"]) == ["a checkpoint of teacher: its result is in dvc.lock"]
    assert not mine.exists()
    assert other.exists()


def test_old_checkpoints_go_and_of_many_the_newest_stay(trains: Trains) -> None:
    kept = []
    for number, days in enumerate((8, 5, 4, 3, 2)):
        trains.edit(f"seed: {13 + number} ", f"seed: {14 + number} ", "params.yaml")
        kept.append(trains.train())
        trains.age(kept[-1], days)
    removed = clean(trains.workspace, [])
    assert sorted(removed) == [
        "a checkpoint of teacher: 3 newer ones are kept",
        "a checkpoint of teacher: not touched for 7 days",
    ]
    assert [folder.exists() for folder in kept] == [False, False, True, True, True]


def test_a_checkpoint_in_use_stays(trains: Trains) -> None:
    folder = trains.train()
    with keeping.try_hold(folder) as lock:
        trains.age(folder, 100)
        assert lock is not None
        assert clean(trains.workspace, ["teacher"]) == []
    assert clean(trains.workspace, ["teacher"]) != []


def test_what_an_interrupted_removal_left_goes_too(trains: Trains) -> None:
    trains.train().rename(trains.folder.with_suffix(".removed"))
    assert clean(trains.workspace, []) == []
    assert list(Path(trains.folder).parent.iterdir()) == []


def test_a_result_trained_from_an_accepted_checkpoint_counts_as_accepted(trains: Trains) -> None:
    trains.train()
    keeping.write_json(keeping.ACCEPTED / "teacher" / f"{trains.folder.name}.json", {"files": ["components/a.py"]})
    assert acceptances.accepted(trains.workspace) == {}
    trains.repro()
    assert acceptances.accepted(trains.workspace) == {}
    clean(trains.workspace, ["teacher"])
    assert acceptances.accepted(trains.workspace) == {"teacher": ["components/a.py"]}
    trains.edit("seed: 13", "seed: 14", "params.yaml")
    trains.repro()
    assert acceptances.accepted(trains.workspace) == {}


def test_neither_torch_nor_transformers_is_imported() -> None:
    script = "import sys\nimport flows.repo.checkpoints\nassert not {'torch', 'transformers', 'dvc'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
