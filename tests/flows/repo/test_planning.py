"""What a run would do to each stage and why, against real DVC on torch-free stages."""

from __future__ import annotations

import shutil
from typing import Any

Toy = Any
UNCHANGED: dict[str, tuple[str, list[str]]] = {name: ("skip", []) for name in ("first", "second", "join", "other")}


def test_a_stage_added_to_dvc_yaml_appears(toy: Toy) -> None:
    toy.edit(
        "dvc.yaml", "stages:\n", "stages:\n  extra: {cmd: 'true', deps: [artifacts/join], outs: [artifacts/extra]}\n"
    )
    assert toy.workspace.stages()["extra"].upstream == {"join"}
    assert toy.plan() == UNCHANGED | {"extra": ("run", ["never run"])}


def test_plan_of_a_fresh_repository_runs_everything(new_toy: Toy) -> None:
    assert new_toy.plan() == {
        "first": ("run", ["never run"]),
        "second": ("run", ["never run", "depends on first"]),
        "join": ("run", ["never run", "depends on first", "depends on second"]),
        "other": ("run", ["never run"]),
    }


def test_plan_of_an_unchanged_repository_skips_everything(toy: Toy) -> None:
    before = (toy.root / "dvc.lock").read_bytes()
    assert toy.plan() == UNCHANGED
    assert toy.repro() == []
    assert (toy.root / "dvc.lock").read_bytes() == before


def test_plan_names_a_changed_parameter_with_old_and_new_value(toy: Toy) -> None:
    toy.edit("params.yaml", "keep: 2, note: 词", "keep: 3, note: 字")
    assert toy.plan() == {
        "first": ("run", ["first.words.keep: 2 -> 3", "first.words.note: 词 -> 字"]),
        "second": ("depends", ["depends on first"]),
        "join": ("depends", ["depends on first", "depends on second"]),
        "other": ("skip", []),
    }


def test_plan_names_added_and_removed_parameters(toy: Toy) -> None:
    toy.edit("params.yaml", "rate: 1.0e-4", "speed: null")
    assert toy.plan()["first"] == ("run", ["first.rate: 0.0001 -> (none)", "first.speed: (none) -> null"])


def test_a_parameter_that_no_stage_reads_changes_nothing(toy: Toy) -> None:
    toy.edit("params.yaml", "unused: 0", "unused: 1")
    assert toy.plan() == UNCHANGED


def test_plan_names_changed_code(toy: Toy) -> None:
    toy.edit("code/second.py", "times = ", "# more\ntimes = ")
    plan = toy.plan()
    assert plan["first"] == ("skip", [])
    assert plan["second"] == ("run", ["code/second.py changed"])
    assert plan["join"] == ("depends", ["depends on second"])


def test_plan_names_changed_data_and_a_changed_command(toy: Toy) -> None:
    (toy.root / "data" / "more.csv").write_text("再来\n", encoding="utf-8")
    toy.edit("dvc.yaml", "code/other.py\n", "code/other.py --again\n")
    plan = toy.plan()
    assert plan["first"] == ("run", ["data changed"])
    assert plan["other"] == ("run", ["the command changed"])


def test_plan_names_a_missing_input_and_a_new_one(toy: Toy) -> None:
    (toy.root / "code" / "other.py").unlink()
    toy.edit("dvc.yaml", "deps: [code/join.py,", "deps: [code/join.py, params.yaml,")
    plan = toy.plan()
    assert plan["other"] == ("run", ["code/other.py is missing"])
    assert plan["join"] == ("run", ["params.yaml is a new input"])


def test_a_missing_output_that_the_cache_holds_is_restored_and_nothing_after_it_changes(toy: Toy) -> None:
    shutil.rmtree(toy.root / "artifacts" / "first")
    assert toy.plan() == UNCHANGED | {"first": ("restore", ["artifacts/first is missing"])}
    assert toy.repro() == ["first"]


def test_a_missing_output_that_the_cache_lacks_is_computed_again(toy: Toy) -> None:
    shutil.rmtree(toy.root / "artifacts" / "first")
    shutil.rmtree(toy.root / ".dvc" / "cache" / "files")
    plan = toy.plan()
    assert plan["first"][0] == "run"
    assert plan["second"][0] == "depends"


def test_all_outputs_missing_are_restored(toy: Toy) -> None:
    shutil.rmtree(toy.root / "artifacts")
    assert {action for action, _ in toy.plan().values()} == {"restore"}


def test_a_stage_that_ran_alone_leaves_the_next_one_changed(toy: Toy) -> None:
    toy.edit("params.yaml", "keep: 2", "keep: 3")
    assert toy.repro("first") == ["first"]
    plan = toy.plan()
    assert plan["first"] == ("skip", [])
    assert plan["second"] == ("run", ["artifacts/first/part changed"])
    shutil.rmtree(toy.root / "artifacts" / "first")
    assert toy.plan()["first"][0] == "restore"
    assert toy.plan()["second"] == ("run", ["artifacts/first/part changed"])


def test_a_parameter_changed_back_is_restored_from_the_run_cache(toy: Toy) -> None:
    toy.edit("params.yaml", "times: 1", "times: 2")
    assert toy.plan()["second"] == ("run", ["second.times: 1 -> 2"])
    toy.repro()
    toy.edit("params.yaml", "times: 2", "times: 1")
    before = (toy.root / "dvc.lock").read_bytes()
    assert toy.plan() == UNCHANGED | {
        "second": ("restore", ["second.times: 2 -> 1"]),
        "join": ("depends", ["depends on second"]),
    }
    assert (toy.root / "dvc.lock").read_bytes() == before
    shutil.rmtree(toy.root / ".dvc" / "cache" / "runs")
    assert toy.plan()["second"][0] == "run"


def test_a_folder_that_gathers_outputs_waits_for_those_to_be_restored(toy: Toy) -> None:
    toy.edit("dvc.yaml", "stages:\n", "stages:\n  all: {cmd: 'ls artifacts > all', deps: [artifacts], outs: [all]}\n")
    toy.repro()
    (toy.root / "artifacts" / "other").unlink()
    assert toy.plan()["all"] == ("depends", ["depends on other"])


def test_a_frozen_stage_is_left_alone(toy: Toy) -> None:
    toy.edit("dvc.yaml", "  second:\n", "  second:\n    frozen: true\n")
    toy.edit("params.yaml", "keep: 2", "keep: 3")
    assert toy.plan()["second"] == ("skip", [])
