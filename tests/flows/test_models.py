"""Which models a workspace has, and what tells one content from another."""

from __future__ import annotations

import json
from pathlib import Path

from flows.models import DIRECT, contents, evaluated, megabytes, models, reference

MAIN = {"teacher": "teacher", "student": "distill", "student_without_distillation": "control", "lora": "finetune"}


def write(root: Path, direct: str | None, controls: str = "a hash") -> None:
    """A lock file, and what the stage `controls` told."""
    stages = ["teacher", "distill", "control", "finetune", "controls"]
    outs = {name: {"outs": [{"path": f"artifacts/{name}", "md5": f"hash of {name}"}]} for name in stages}
    outs["controls"]["outs"][0]["md5"] = controls
    (root / "dvc.lock").write_text(json.dumps({"stages": outs}), encoding="utf-8")
    (root / "artifacts/controls").mkdir(parents=True, exist_ok=True)
    (root / "artifacts/controls/controls.json").write_text(json.dumps({"direct": direct}), encoding="utf-8")


def test_each_main_model_is_the_whole_output_of_its_stage() -> None:
    assert {model.name: model.stage for model in models()} == MAIN
    for model in models():
        assert model.folder == Path("artifacts") / model.stage / "model"
        assert model.history == Path("artifacts") / model.stage / "history.jsonl"


def test_a_direct_fine_tune_is_a_model_only_where_it_was_asked_for(tmp_path: Path) -> None:
    assert evaluated(tmp_path) == models()
    write(tmp_path, direct=None)
    assert evaluated(tmp_path) == models()
    assert set(contents(tmp_path)) == set(MAIN)
    write(tmp_path, direct="abc")
    assert evaluated(tmp_path) == [*models(), DIRECT]
    assert contents(tmp_path) == {name: f"hash of {stage}" for name, stage in MAIN.items()} | {DIRECT.name: "abc"}
    assert DIRECT.folder == Path("artifacts/controls/direct/model")


def test_more_seeds_do_not_make_another_direct_fine_tune(tmp_path: Path) -> None:
    write(tmp_path, direct="abc", controls="with one seed")
    before = contents(tmp_path)
    write(tmp_path, direct="abc", controls="with two seeds")
    assert contents(tmp_path) == before


def test_a_reference_says_what_it_is_where_it_is_and_how_to_get_it(tmp_path: Path) -> None:
    write(tmp_path, direct=None)
    folder = tmp_path / "artifacts/teacher/model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/weights").write_bytes(b"x" * 1_500_000)
    assert megabytes(folder) == 1.5
    found = reference(tmp_path, models()[0], "store s3://bucket/path")
    assert {name.removeprefix("stillhouse.dvc."): value for name, value in found.items()} == {
        "hash": "hash of teacher",
        "output": "artifacts/teacher",
        "path": "artifacts/teacher/model",
        "remote": "store s3://bucket/path",
        "megabytes": "1.5",
        "fetch": "git fetch origin 'refs/stillhouse/*:refs/stillhouse/*'; "
        "dvc get . artifacts/teacher/model --rev COMMIT --out FOLDER",
    }
