"""A result or a checkpoint is kept across a code edit, and across nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components import keeping
from components.errors import UserError
from flows.repo.accepting import accept, accepted
from flows.repo.checkpoints import resumable
from tests.flows.conftest import Toy
from tests.flows.repo.conftest import CODE, Trains

EDIT = ("code/second.py", "from pathlib", "# An edit.\nfrom pathlib")


def test_an_accepted_result_is_up_to_date_and_known_as_accepted(toy: Toy) -> None:
    toy.edit(*EDIT)
    assert toy.plan()["second"][0] == "run"
    assert accept(toy.workspace, "second") == [
        "The result of second is kept across edits of code/second.py: dvc.lock has it as made by this code."
    ]
    assert {action for action, _ in toy.plan().values()} == {"skip"}
    assert toy.repro() == []
    assert accepted(toy.workspace) == {"second": ["code/second.py"]}


def test_an_acceptance_ends_with_the_result_it_is_about(toy: Toy) -> None:
    toy.edit(*EDIT)
    accept(toy.workspace, "second")
    toy.edit("params.yaml", "times: 1", "times: 2")
    toy.repro()
    assert accepted(toy.workspace) == {}
    toy.edit("params.yaml", "times: 2", "times: 1")
    toy.repro()
    assert accepted(toy.workspace) == {"second": ["code/second.py"]}


def test_edits_accepted_one_after_the_other_add_up(toy: Toy) -> None:
    toy.edit(
        "dvc.yaml", "[code/second.py, artifacts/first/part]", "[code/second.py, code/other.py, artifacts/first/part]"
    )
    accept(toy.workspace, "second")
    toy.edit(*EDIT)
    accept(toy.workspace, "second")
    assert accepted(toy.workspace) == {"second": ["code/other.py", "code/second.py"]}


def test_a_result_that_is_only_in_the_cache_is_put_back(toy: Toy) -> None:
    toy.edit(*EDIT)
    before = (toy.root / "artifacts/second").read_text()
    (toy.root / "artifacts/second").unlink()
    accept(toy.workspace, "second")
    assert (toy.root / "artifacts/second").read_text() == before


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("params.yaml", "times: 1", "times: 3", "second.times: 1 -> 3"),
        ("artifacts/first/part", "文", "字", "artifacts/first/part changed"),
        ("artifacts/second", "文", "字", "artifacts/second is not as the stage left it"),
        ("dvc.yaml", "code/second.py\n    deps", "-u code/second.py\n    deps", "the command changed"),
    ],
)
def test_more_than_an_edit_of_code_is_refused_and_named(file: str, old: str, new: str, said: str, toy: Toy) -> None:
    toy.edit(*EDIT)
    for path in (toy.root / "artifacts/first/part", toy.root / "artifacts/second"):
        content = path.read_bytes()
        path.unlink()  # it may be a link into the cache
        path.write_bytes(content)
    toy.edit(file, old, new)
    before = (toy.root / "dvc.lock").read_text()
    with pytest.raises(UserError, match="to differ in its code alone") as error:
        accept(toy.workspace, "second")
    assert said in error.value.message
    assert (toy.root / "dvc.lock").read_text() == before


def test_there_must_be_something_to_accept(toy: Toy, new_toy: Toy) -> None:
    with pytest.raises(UserError, match="the result of second is up to date"):
        accept(toy.workspace, "second")
    with pytest.raises(UserError, match=r"There is no stage 'secnd'\. Did you mean 'second'"):
        accept(toy.workspace, "secnd")
    with pytest.raises(UserError, match="second has neither a result nor a checkpoint"):
        accept(new_toy.workspace, "second")


def test_an_accepted_checkpoint_is_the_one_to_go_on_from(trains: Trains) -> None:
    trains.train(step=30)
    trains.edit()
    assert accept(trains.workspace, "teacher") == [
        f"The checkpoint of teacher at step 30 of 40 is kept across edits of {CODE}: the next run goes on from it."
    ]
    found = resumable(trains.workspace, "teacher")
    assert found is not None
    assert (found.step, found.accepted) == (30, (CODE,))
    with pytest.raises(UserError, match="teacher goes on at step 30 of 40"):
        accept(trains.workspace, "teacher")


def test_a_checkpoint_may_be_accepted_twice(trains: Trains) -> None:
    trains.train()
    other = "components/teacher.py"
    for file in (CODE, other):
        trains.edit(name=file)
        accept(trains.workspace, "teacher")
    found = resumable(trains.workspace, "teacher")
    assert found is not None
    assert found.accepted == (CODE, other)


def test_a_checkpoint_of_other_parameters_and_data_is_refused(trains: Trains) -> None:
    trains.train()
    trains.edit()
    trains.edit("lr: 8.0e-5", "lr: 9.0e-5", "params.yaml")
    (trains.root / "artifacts/validate/schema.json").write_text("else")
    with pytest.raises(UserError, match="to differ in its code alone") as error:
        accept(trains.workspace, "teacher")
    expected = "teacher.phases.general.lr: 8e-05 -> 9e-05; artifacts/validate/schema.json changed"
    assert f"of its newest checkpoint: {expected}" in error.value.message


def test_the_newest_checkpoint_that_differs_in_code_alone_is_taken(trains: Trains) -> None:
    trains.age(trains.train(step=30), 2)
    trains.edit("seed: 13", "seed: 14", "params.yaml")
    trains.age(trains.train(step=20), 1)
    trains.edit("seed: 14", "seed: 13", "params.yaml")
    trains.edit()
    assert "at step 30 of 40" in accept(trains.workspace, "teacher")[0]


@pytest.mark.parametrize(("step", "taken"), [(10, True), (30, False)])
def test_training_already_begun_with_the_edit_is_given_up_only_if_it_is_behind(
    step: int, taken: bool, trains: Trains
) -> None:
    trains.age(trains.train(step=20), 1)
    trains.edit()
    trains.train(step=step)
    if not taken:
        with pytest.raises(UserError, match="goes on at step 30 of 40 with the present code"):
            accept(trains.workspace, "teacher")
        return
    accept(trains.workspace, "teacher")
    found = resumable(trains.workspace, "teacher")
    assert found is not None
    assert found.step == 20


def test_a_checkpoint_in_use_is_left_alone(trains: Trains) -> None:
    with keeping.hold(trains.train(), lambda: None):
        trains.edit()
        with pytest.raises(UserError, match="teacher is being trained"):
            accept(trains.workspace, "teacher")


def test_an_acceptance_that_was_interrupted_can_be_repeated(trains: Trains) -> None:
    before = trains.train()
    trains.edit()
    accept(trains.workspace, "teacher")
    shutil.move(trains.folder, before)  # the parts are written before the folder gets its new name
    assert resumable(trains.workspace, "teacher") is None
    accept(trains.workspace, "teacher")
    found = resumable(trains.workspace, "teacher")
    assert found is not None
    assert found.accepted == (CODE,)


def test_a_result_is_accepted_before_a_checkpoint(trains: Trains) -> None:
    trains.repro()
    trains.train()
    trains.edit()
    assert accept(trains.workspace, "teacher")[0].startswith("The result of teacher is kept")
    assert Path("artifacts/teacher/params.yaml").exists()
