"""Verifying from a clean clone, on stages without torch: what is run, what is put in place, what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.errors import UserError
from flows.runs.display import Display
from flows.verification.verify import verify

Toy = Any


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def again(toy: Toy, *names: str, **options: Any) -> dict[str, Any]:
    with Display(Console(quiet=True)) as display:
        return verify(toy.workspace, names, display=display, **options)


def record(toy: Toy, stage: str) -> None:
    """Make what lies in artifacts/ the recorded result of a stage."""
    with contextlib.chdir(toy.root), toy.repo() as repo:
        repo.commit(stage, force=True)


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {name: stage["verdict"] for name, stage in found["stages"].items()}


def test_what_runs_again_to_the_same_bytes_is_equal_and_nothing_is_left(toy: Toy, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in toy.root.rglob("*") if path.is_file() and ".git/" not in str(path)}
    found = again(toy)
    assert found["verdict"] == "equal"
    assert verdicts(found) == dict.fromkeys(("first", "second", "join", "other"), "equal")
    assert [output["path"] for output in found["stages"]["first"]["outputs"]] == [
        "artifacts/first/log",
        "artifacts/first/part",
    ]
    assert not list((tmp_path / "tmp").iterdir())
    written = toy.root / "reports/verify.json"
    assert json.loads(written.read_text("utf-8")) == found
    ours = {path: path.read_bytes() for path in before}
    assert ours == before


def test_a_named_stage_runs_on_what_was_recorded_of_the_others(toy: Toy) -> None:
    found = again(toy, "join", keep=True)
    assert verdicts(found) == {"join": "equal"}
    clone = Path(found["clone"])
    assert (clone / "artifacts/first/part").read_text("utf-8") == "文本,label 很好,1"
    assert not (clone / "artifacts/other").exists()


def test_a_result_that_comes_out_otherwise_is_named_and_what_follows_from_it_too(toy: Toy) -> None:
    toy.edit("artifacts/first/part", "很好", "很坏")
    record(toy, "first")
    toy.repro()
    found = again(toy)
    assert verdicts(found) == {"first": "different", "second": "different", "join": "different", "other": "equal"}
    assert found["verdict"] == "different"
    (part,) = [output for output in found["stages"]["first"]["outputs"] if output["verdict"] == "different"]
    assert part == {
        "path": "artifacts/first/part",
        "verdict": "different",
        "greatest_difference": None,
        "first_difference": {"where": "line 1", "recorded": "'文本,label 很坏,1'", "found": "'文本,label 很好,1'"},
    }
    assert found["stages"]["first"]["inputs_differ"] == []
    assert found["stages"]["second"]["inputs_differ"] == ["first"]
    assert again(toy, "second")["verdict"] == "equal"


def test_a_file_too_many_is_different(toy: Toy) -> None:
    (toy.root / "artifacts/first/log").unlink()
    record(toy, "first")
    (log,) = [out for out in again(toy, "first")["stages"]["first"]["outputs"] if out["verdict"] == "different"]
    assert (log["path"], log["first_difference"]["recorded"]) == ("artifacts/first/log", "nothing")


def test_edits_of_tracked_files_come_along_and_untracked_ones_do_not(toy: Toy) -> None:
    toy.edit("params.yaml", "times: 1", "times: 3")
    (toy.root / "code/helper.py").write_text("TIMES = 3\n")
    toy.edit("code/join.py", "from pathlib import Path\n", "from pathlib import Path\nimport helper\n")
    toy.repro()
    found = again(toy, "second")
    assert (found["verdict"], found["edited"]) == ("equal", ["code/join.py", "params.yaml"])
    with pytest.raises(UserError, match="join can't be run again from a clean clone") as caught:
        again(toy, "join")
    assert "No module named 'helper'" in caught.value.message
    assert "git" in caught.value.remedy


def test_a_dependency_that_git_lacks_is_named(toy: Toy) -> None:
    (toy.root / "extra.txt").write_text("x")
    toy.edit("dvc.yaml", "deps: [code/other.py,", "deps: [code/other.py, extra.txt,")
    toy.repro()
    with pytest.raises(UserError, match=r"other reads extra\.txt, which a clean clone doesn't have"):
        again(toy, "other")


def test_nothing_to_compare_with_is_said(new_toy: Toy) -> None:
    new_toy.workspace.add_data()
    with pytest.raises(UserError, match="never ran") as caught:
        again(new_toy)
    assert "stillhouse run" in caught.value.remedy


def test_results_of_other_inputs_are_not_compared(toy: Toy) -> None:
    toy.edit("params.yaml", "times: 1", "times: 2")
    with pytest.raises(UserError, match=r"second: second\.times: 1 -> 2"):
        again(toy)
    assert again(toy, "first")["verdict"] == "equal"
    toy.edit("code/first.py", "done", "finished")
    with pytest.raises(UserError, match=r"first: code/first\.py changed"):
        again(toy, "first")


def test_a_result_made_from_another_one_than_is_recorded_now_is_not_compared(toy: Toy) -> None:
    toy.edit(
        "code/first.py",
        "'log').write_text",
        "'part').write_text('', encoding='utf-8'); (here / 'first' / 'log').write_text",
    )
    toy.repro("first")
    with pytest.raises(UserError, match="second: artifacts/first/part changed"):
        again(toy, "second")


def test_other_library_versions_are_refused(toy: Toy) -> None:
    (toy.root / "runtime.json").write_text('{"torch": "0.0.1"}')
    with pytest.raises(UserError, match=r"torch: expected 0\.0\.1") as caught:
        again(toy)
    assert caught.value.kind == "runtime"


def test_a_damaged_file_in_the_cache_is_no_verdict(toy: Toy) -> None:
    (kept,) = [
        path for path in (toy.root / ".dvc/cache/files").rglob("*") if path.is_file() and path.read_bytes() == b"done"
    ]
    kept.chmod(0o644)
    kept.write_bytes(b"gone")
    with pytest.raises(UserError, match="in DVC's cache is damaged"):
        again(toy, "first")


def test_a_stage_nobody_knows_is_refused_and_so_is_a_project_without_git(toy: Toy) -> None:
    with pytest.raises(UserError, match="no stage 'frist'"):
        again(toy, "frist")
    (toy.root / ".git").rename(toy.root / "git.gone")
    with pytest.raises(UserError, match="git"):
        again(toy)


def test_a_project_in_a_folder_of_its_repository_is_cloned_as_such(toy: Toy, tmp_path: Path) -> None:
    from flows.verification.clone import make

    top = toy.root
    (top / "inner").mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (top / "inner" / name).write_text("a: 1\n")
    toy.git("add", ".")
    toy.git("commit", "--quiet", "-m", "inner")
    toy.edit("inner/params.yaml", "1", "2")
    toy.edit("params.yaml", "times: 1", "times: 2")
    root, edited = make(type(toy.workspace)(top / "inner"), tmp_path / "clone")
    assert root == tmp_path / "clone" / "inner"
    assert (root / "params.yaml").read_text() == "a: 2\n"
    assert edited == ["inner/params.yaml", "params.yaml"]


@pytest.mark.parametrize("tolerance", [math.nan, math.inf, -1.0])
def test_a_tolerance_that_is_none_is_refused_before_anything_runs(toy: Toy, tolerance: float) -> None:
    with pytest.raises(UserError, match=f"tolerance of 0 or more.* got {tolerance:g}"):
        again(toy, tolerance=tolerance)


def test_names_of_files_are_told_as_they_stand(toy: Toy) -> None:
    (toy.root / "[red]notes.txt").write_text("a")
    toy.git("add", ".")
    toy.git("commit", "--quiet", "-m", "notes")
    toy.edit("[red]notes.txt", "a", "b")
    console = Console(file=io.StringIO(), width=200)
    with Display(console) as display:
        verify(toy.workspace, ["other"], display=display)
    assert isinstance(console.file, io.StringIO)
    assert "uncommitted [red]notes.txt\n" in console.file.getvalue()
