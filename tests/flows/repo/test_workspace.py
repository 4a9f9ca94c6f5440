"""The workspace: graph, digests, data checks, errors, against real DVC on torch-free stages."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows.repo.workspace import Workspace

Toy = Any
UNCHANGED: dict[str, tuple[str, list[str]]] = {name: ("skip", []) for name in ("first", "second", "join", "other")}


def test_workspace_is_found_from_a_folder_inside(toy: Toy) -> None:
    assert Workspace.find(toy.root / "code").root == toy.root


def test_a_workspace_named_by_a_link_gives_the_same_paths(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(toy.root)
    linked = Workspace(tmp_path / "link")
    assert linked.stages() == toy.workspace.stages()
    assert linked.inputs_digest() == toy.workspace.inputs_digest()
    toy.edit("code/other.py", "len", "1 + len")
    assert linked.plan() == toy.workspace.plan()
    linked.check_data()


def test_outside_a_project_the_error_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected dvc.yaml and .dvc"):
        Workspace.find(tmp_path)


def test_stages_come_in_topological_order_and_else_as_declared(new_toy: Toy) -> None:
    assert list(new_toy.workspace.stages()) == ["first", "second", "join", "other"]


def test_a_dependency_inside_another_stages_output_is_an_edge(new_toy: Toy) -> None:
    stages = new_toy.workspace.stages()
    assert [stages[name].upstream for name in stages] == [set(), {"first"}, {"first", "second"}, set()]
    assert stages["second"].deps == [Path("code/second.py"), Path("artifacts/first/part")]
    assert stages["second"].outs == [Path("artifacts/second")]
    assert stages["second"].params == ["second.times"]
    assert stages["second"].command.endswith("code/second.py")


def test_several_threads_can_plan_at_once(toy: Toy) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(plan == UNCHANGED for plan in pool.map(lambda _: toy.plan(), range(8)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dvc.yaml", "stages:\n  a: {cmd: x, dep: [y]}\n", "extra keys not allowed"),
        ("dvc.yaml", "stages: [a\n", "dvc.yaml"),
        ("dvc.yaml", "stages:\n  a: {cmd: x, outs: [y]}\n  b: {cmd: x, outs: [y]}\n", "output 'y'"),
        ("dvc.yaml", "stages:\n  a: {cmd: x, deps: [z], outs: [y]}\n  b: {cmd: x, deps: [y], outs: [z]}\n", "stages:"),
        ("dvc.yaml", "stages:\n  a: {cmd: 'x ${nope}', outs: [y]}\n", "nope"),
        ("dvc.lock", "schema: '2.0'\nstages: {first: {cmd: 3}}\n", "dvc.lock"),
        ("dvc.lock", "stages: [\n", "dvc.lock"),
        ("dvc.lock", "- a\n", "dvc.lock"),
    ],
)
def test_a_damaged_file_of_dvc_is_a_readable_error(toy: Toy, name: str, content: str, message: str) -> None:
    (toy.root / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        toy.workspace.plan()
    assert caught.value.kind == "pipeline"
    assert caught.value.remedy


def test_dvc_at_work_elsewhere_is_a_readable_error(toy: Toy) -> None:
    with toy.repo() as repo, repo.lock, pytest.raises(UserError, match="DVC is busy"):
        toy.workspace.add_data()


def test_lock_digest_ignores_order_and_sees_contents(toy: Toy) -> None:
    digest = toy.workspace.lock_digest()
    lock = toy.root / "dvc.lock"
    text = lock.read_text(encoding="utf-8")
    head, first = text.index("  first:"), text.index("  join:")
    lock.write_text(text[:head] + text[first:] + text[head:first], encoding="utf-8")
    assert toy.workspace.lock_digest() == digest
    lock.write_text(text.replace("nfiles: 2", "nfiles: 3"), encoding="utf-8")
    assert toy.workspace.lock_digest() != digest


def test_lock_digest_is_empty_before_the_first_run(new_toy: Toy) -> None:
    assert new_toy.workspace.lock_digest() == ""
    assert new_toy.workspace.lock_entries() == {}


def test_inputs_digest_is_known_before_a_run_and_stays_the_same(new_toy: Toy) -> None:
    before = new_toy.workspace.inputs_digest()
    new_toy.repro()
    assert new_toy.workspace.inputs_digest() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("params.yaml", "keep: 2", "keep: 3"),
        ("code/join.py", "here", "here "),
        ("data/rows.csv", "很好", "很棒"),
        ("dvc.yaml", "code/other.py\n", "code/other.py -v\n"),
    ],
)
def test_inputs_digest_sees_parameters_code_data_and_commands(toy: Toy, name: str, old: str, new: str) -> None:
    before = toy.workspace.inputs_digest()
    toy.edit(name, old, new)
    assert toy.workspace.inputs_digest() != before


def test_inputs_digest_ignores_outputs_and_parameters_that_no_stage_reads(toy: Toy) -> None:
    before = toy.workspace.inputs_digest()
    shutil.rmtree(toy.root / "artifacts")
    toy.edit("params.yaml", "unused: 0", "unused: 1")
    assert toy.workspace.inputs_digest() == before


def test_output_hash_is_that_of_an_output_or_of_a_path_inside_one(toy: Toy) -> None:
    folder, part = (toy.workspace.output_hash(path) for path in ("artifacts/first", Path("artifacts/first/part")))
    assert folder == toy.workspace.folder_hash(Path("artifacts/first"))
    assert part not in (None, folder)
    assert toy.workspace.output_hash("artifacts/nothing") is None


def test_data_as_pinned_passes(toy: Toy) -> None:
    toy.workspace.check_data()
    assert toy.workspace.data_hash() == toy.workspace.folder_hash(toy.workspace.data)


def test_missing_data_names_the_command_that_gets_it(toy: Toy) -> None:
    shutil.rmtree(toy.workspace.data)
    with pytest.raises(UserError, match="stillhouse data pull") as caught:
        toy.workspace.check_data()
    assert caught.value.kind == "data"


def test_missing_data_dvc_is_refused(new_toy: Toy) -> None:
    with pytest.raises(UserError, match=r"Expected data\.dvc") as caught:
        new_toy.workspace.check_data()
    assert caught.value.kind == "data"


def test_data_dvc_that_pins_nothing_is_refused(toy: Toy) -> None:
    (toy.root / "data.dvc").write_text("outs: []\n", encoding="utf-8")
    with pytest.raises(UserError, match="doesn't pin anything"):
        toy.workspace.check_data()


def test_data_that_differs_names_the_files_and_both_ways_out(toy: Toy) -> None:
    (toy.workspace.data / "新的.csv").write_text("x\n", encoding="utf-8")
    toy.edit("data/rows.csv", "很好", "很棒")
    with pytest.raises(UserError) as caught:
        toy.workspace.check_data()
    assert "added: 新的.csv" in caught.value.message
    assert "changed: rows.csv" in caught.value.message
    assert "stillhouse data add" in caught.value.remedy
    assert "dvc checkout data.dvc" in caught.value.remedy
    (toy.workspace.data / "rows.csv").unlink()
    with pytest.raises(UserError, match=r"removed: rows\.csv"):
        toy.workspace.check_data()


def test_data_that_differs_is_refused_also_when_the_cache_is_gone(toy: Toy) -> None:
    shutil.rmtree(toy.root / ".dvc" / "cache")
    toy.workspace.check_data()
    toy.edit("data/rows.csv", "很好", "很棒")
    with pytest.raises(UserError, match="data/ differs"):
        toy.workspace.check_data()


def test_folder_hash_is_dvcs_also_for_a_half_written_folder(toy: Toy) -> None:
    partial = toy.root / "data.partial"
    shutil.copytree(toy.workspace.data, partial)
    assert toy.workspace.folder_hash(partial) == toy.workspace.data_hash()


def test_git_commit_tells_a_clean_tree_from_an_edited_one(toy: Toy) -> None:
    commit = toy.workspace.git_commit()
    assert commit is not None
    assert len(commit) == 40
    toy.edit("dvc.lock", "nfiles: 2", "nfiles: 3")
    (toy.root / "untracked").write_text("x")
    assert toy.workspace.git_commit() == commit
    toy.edit("params.yaml", "keep: 2", "keep: 3")
    assert toy.workspace.git_commit() == f"{commit}-dirty"


def test_git_commit_is_none_without_commits_or_git(
    new_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert new_toy.workspace.git_commit() is None
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    assert Workspace(tmp_path / "plain").git_commit() is None
    monkeypatch.setenv("PATH", "")
    assert new_toy.workspace.git_commit() is None
