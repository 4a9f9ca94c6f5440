"""What a run would do to each stage and why, against real DVC on torch-free stages."""

from __future__ import annotations

import hashlib
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows.repo import accepting, checkpoints, kept, timings
from flows.repo.checkpoints import Checkpoint
from flows.repo.choice import Choice

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
    assert plan["first"] == ("run", ["data/more.csv added"])
    assert plan["other"] == ("run", ["the command changed"])


def test_plan_names_the_files_of_a_changed_folder_and_counts_the_rest(toy: Toy) -> None:
    for number in range(4):
        (toy.root / "data" / f"{number}.csv").write_text("再来\n", encoding="utf-8")
    toy.edit("data/rows.csv", "很好", "很棒")
    named = ["data/rows.csv changed", "data/0.csv added", "data/1.csv added", "and 2 more in data"]
    assert toy.plan()["first"] == ("run", named)
    (toy.root / "data" / "rows.csv").unlink()
    assert toy.plan()["first"][1][2:] == ["data/2.csv added", "and 2 more in data"]
    for number in range(1, 4):
        (toy.root / "data" / f"{number}.csv").unlink()
    assert toy.plan()["first"] == ("run", ["data/0.csv added", "data/rows.csv removed"])


def test_a_changed_folder_of_which_the_cache_has_no_list_is_named_as_a_whole(toy: Toy) -> None:
    toy.edit("data/rows.csv", "很好", "很棒")
    _cached(toy, "data")[0].unlink()
    assert toy.plan()["first"] == ("run", ["data changed"])


def test_plan_tells_a_number_from_the_same_in_quotes_and_writes_values_as_yaml_does(toy: Toy) -> None:
    toy.edit("params.yaml", "times: 1", "times: '1'")
    toy.edit("params.yaml", "rate: 1.0e-4", "rate: [true, null, 词]")
    assert toy.plan()["second"][1] == ['second.times: 1 -> "1"', "depends on first"]
    assert toy.plan()["first"][1] == ['first.rate: 0.0001 -> [true, null, "词"]']


def _digest(root: Path) -> str:
    """Of every file and folder with its mode, git's and DVC's own included."""
    content = [
        (str(path), path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    ]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def test_a_plan_changes_nothing_on_disk_whatever_it_finds(toy: Toy, earlier: Any) -> None:
    toy.edit("params.yaml", "times: 1", "times: 2")
    toy.repro()
    toy.edit("params.yaml", "times: 2", "times: 1")
    toy.edit("data/rows.csv", "很好", "很棒")
    toy.edit("code/other.py", "len", "1 + len")
    timings.add(toy.workspace, "first", "ran", 1.0)
    (toy.root / "artifacts" / "join").unlink()
    for damaged in [*_cached(toy, "artifacts/join"), *(toy.root / ".dvc/cache/runs").glob("*/*/*")]:
        damaged.chmod(0o644)
        damaged.write_text("damaged: [", encoding="utf-8")
    before = _digest(toy.root)
    assert [action for action, _ in toy.plan().values()] == ["run", "run", "depends", "run"]
    assert _digest(toy.root) == before


def _cached(toy: Toy, *outputs: str) -> list[Path]:
    """The files in DVC's cache of outputs that dvc.lock names."""
    found = [toy.workspace.output_hash(output) for output in outputs]
    return [toy.root / ".dvc/cache/files/md5" / value[:2] / value[2:] for value in found]


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


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what earlier runs left: checkpoints by stage, and edits that were accepted by stage."""

    def set_up(found: dict[str, Checkpoint] | None = None, accepted: dict[str, list[str]] | None = None) -> None:
        monkeypatch.setattr(checkpoints, "resumable", lambda workspace, stage: (found or {}).get(stage))
        monkeypatch.setattr(accepting, "accepted", lambda workspace: accepted or {})

    set_up()
    return set_up


def test_a_stage_with_a_checkpoint_is_resumed_for_the_time_that_is_left(toy: Toy, earlier: Any) -> None:
    toy.edit("params.yaml", "times: 1", "times: 2")
    earlier({"second": Checkpoint("second", "f", 30, 40), "join": Checkpoint("join", "f", 1, 2)})
    timings.add(toy.workspace, "second", "ran", 100.0)
    timings.add(toy.workspace, "join", "ran", 8.0)
    _, second, join, other = toy.workspace.plan()
    assert (second.action, second.step, second.seconds) == ("resume", 30, 25.0)
    assert second.because == ["goes on at step 30 of 40", "second.times: 1 -> 2"]
    assert (join.action, join.step, join.seconds) == ("depends", None, 8.0)
    assert (other.action, other.step, other.seconds) == ("skip", None, None)


def test_a_stage_whose_inputs_are_not_settled_is_not_resumed_nor_one_that_is_restored(toy: Toy, earlier: Any) -> None:
    earlier({name: Checkpoint(name, "f", 1, 2) for name in UNCHANGED})
    assert toy.plan() == UNCHANGED
    toy.edit("params.yaml", "keep: 2", "keep: 3")
    toy.edit("code/second.py", "times = ", "# more\ntimes = ")
    (toy.root / "artifacts" / "other").unlink()
    plan = toy.plan()
    assert plan["first"][0] == "resume"
    assert plan["second"] == ("run", ["code/second.py changed", "depends on first"])
    assert plan["other"][0] == "restore"


def test_a_result_or_checkpoint_kept_across_an_edit_says_so(toy: Toy, earlier: Any) -> None:
    kept_one = Checkpoint("second", "f", 30, 40, accepted=("code/second.py",))
    earlier({"second": kept_one}, {"other": ["code/other.py", "code/more.py"]})
    toy.edit("params.yaml", "times: 1", "times: 2")
    plan = toy.plan()
    assert plan["other"] == ("skip", ["accepted across edits of code/other.py, code/more.py"])
    assert plan["second"][1][1] == "accepted across edits of code/second.py"


def test_the_time_is_that_of_earlier_runs_of_the_same_kind(toy: Toy, earlier: Any) -> None:
    timings.add(toy.workspace, "first", "ran", 60.0)
    timings.add(toy.workspace, "first", "restored", 2.0)
    shutil.rmtree(toy.root / "artifacts" / "first")
    assert toy.workspace.plan()[0].seconds == 2.0
    toy.edit("params.yaml", "keep: 2", "keep: 3")
    assert [stage.seconds for stage in toy.workspace.plan()] == [60.0, None, None, None]


def chosen(toy: Toy, *only: str, **ends: str) -> dict[str, tuple[str, list[str]]]:
    return {stage.name: (stage.action, stage.because) for stage in toy.workspace.plan(Choice(only, **ends))}


def test_only_the_chosen_stages_are_planned_and_build_on_what_lies_there(toy: Toy) -> None:
    toy.edit("params.yaml", "keep: 2", "keep: 3")
    note = "first is left as it is, though first.words.keep: 2 -> 3"
    assert chosen(toy, "second", "other") == {"second": ("skip", [note]), "other": ("skip", [])}
    assert chosen(toy, last="first") == {"first": ("run", ["first.words.keep: 2 -> 3"])}
    (toy.root / "artifacts" / "first" / "part").write_text("x", encoding="utf-8")
    note = "first is left as it is, though first.words.keep: 2 -> 3"
    assert chosen(toy, "second") == {"second": ("run", ["artifacts/first/part changed", note])}
    assert toy.repro("second") == ["second"]


def test_what_is_left_out_of_date_is_told_once_however_far_up_it_is(toy: Toy) -> None:
    toy.edit("code/first.py", "keep = ", "# more\nkeep = ")
    toy.edit("params.yaml", "times: 1", "times: 2")
    first = "first is left as it is, though code/first.py changed"
    second = "second is left as it is, though second.times: 1 -> 2"
    assert chosen(toy, "join") == {"join": ("skip", [first, second])}
    assert chosen(toy, "join", "first")["join"] == ("depends", ["depends on first", second])
    toy.edit("params.yaml", "times: 2", "times: 1")
    second = "second is left as it is, though it depends on first"
    assert chosen(toy, "join", "first")["join"] == ("depends", ["depends on first", second])


def test_a_chosen_stage_whose_input_another_would_have_to_write_is_refused(toy: Toy, new_toy: Toy) -> None:
    (toy.root / "artifacts" / "second").unlink()
    with pytest.raises(UserError, match="join reads artifacts/second, which is missing") as caught:
        chosen(toy, "join")
    assert "`--from second`" in caught.value.remedy
    assert list(chosen(toy, first="second")) == ["second", "join"]
    with pytest.raises(UserError, match="second reads artifacts/first/part"):
        chosen(new_toy, "second")


def share(toy: Toy) -> Path:
    """Push everything to a remote in a folder."""
    folder: Path = toy.root.parent / "remote"
    config = f"[core]\n    remote = shared\n['remote \"shared\"']\n    url = {folder}\n"
    (toy.root / ".dvc" / "config").write_text(config, encoding="utf-8")
    with toy.repo() as repo:
        repo.push(run_cache=True)
    return folder


def pulled(toy: Toy) -> dict[str, tuple[str, list[str]]]:
    return {stage.name: (stage.action, stage.because) for stage in toy.workspace.plan(pull=True)}


def test_in_a_fresh_clone_everything_is_restored_from_the_remote(toy: Toy) -> None:
    share(toy)
    for folder in ("artifacts", ".dvc/cache"):
        shutil.rmtree(toy.root / folder)
    assert pulled(toy) == dict.fromkeys(UNCHANGED, ("restore", ["from the remote shared"]))
    assert toy.plan()["first"][0] == "run"


def test_what_neither_the_cache_nor_the_remote_has_is_run(toy: Toy) -> None:
    folder = share(toy)
    value = toy.workspace.output_hash("artifacts/other")
    (folder / "files/md5" / value[:2] / value[2:]).unlink()
    for name in ("artifacts", ".dvc/cache"):
        shutil.rmtree(toy.root / name)
    plan = pulled(toy)
    assert plan["first"] == ("restore", ["from the remote shared"])
    assert plan["other"] == ("run", ["artifacts/other is not in DVC's cache"])


def test_a_result_of_the_inputs_of_now_is_found_in_the_remotes_run_cache(toy: Toy) -> None:
    toy.edit("params.yaml", "times: 1", "times: 2")
    toy.repro()
    share(toy)
    toy.git("checkout", "--quiet", "dvc.lock")
    for name in ("artifacts", ".dvc/cache"):
        shutil.rmtree(toy.root / name)
    plan = pulled(toy)
    assert plan["first"] == ("restore", ["from the remote shared"])
    assert plan["second"] == ("restore", ["second.times: 1 -> 2", "from the remote shared"])
    assert plan["join"] == ("depends", ["depends on second"])


@contextmanager
def _silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_remote_that_does_not_answer_is_a_line_of_the_plan_and_costs_seconds(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 0.3)
    shutil.rmtree(toy.root / "artifacts")
    shutil.rmtree(toy.root / ".dvc" / "cache")
    with _silent_server() as port:
        config = f"[core]\n    remote = far\n['remote \"far\"']\n    url = http://me:hunter2@127.0.0.1:{port}/\n"
        (toy.root / ".dvc" / "config").write_text(config, encoding="utf-8")
        started = time.monotonic()
        plan = pulled(toy)
        took = time.monotonic() - started
    assert took < 5
    lost = "artifacts/first is not in DVC's cache"
    assert plan["first"] == ("run", ["the remote far can't be asked: no answer within 0.3 s", lost])
    assert sum("can't be asked" in reason for _, because in plan.values() for reason in because) == 1
    assert "hunter2" not in str(plan)


def test_a_remote_that_is_not_there_is_a_line_of_the_plan(toy: Toy) -> None:
    shutil.rmtree(toy.root / "artifacts" / "first")
    shutil.rmtree(toy.root / ".dvc" / "cache" / "files")
    (toy.root / ".dvc" / "config").write_text("[core]\n    remote = gone\n", encoding="utf-8")
    assert "the remote gone can't be asked: " in pulled(toy)["first"][1][0]
