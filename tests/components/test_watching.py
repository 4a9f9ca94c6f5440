"""A result is never credited to parameters, code or data that were edited while its stage ran."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from components import __main__ as launcher
from components import component as component_module
from components.component import COMPONENTS, Component
from components.errors import UserError, recall
from components.params.stages import Runtime
from components.validate.models import digests

ROOT = Path(__file__).parents[2]
OUTPUT = Path("artifacts/toy")
CHECKPOINT = ".stillhouse/checkpoints/toy/*/0-phase"


def replace(path: str, old: str, new: str) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """A function that runs a component by its launcher and does something while it runs; an older output is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("params.yaml", "runtime.json"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys/watched.py").write_text("x = 1\n")
    (tmp_path / "data/big").mkdir(parents=True)
    (tmp_path / "data/rows").write_text("1234")
    (tmp_path / "data/big/weights").write_text("1234")
    replace("params.yaml", "models: {}", "models: {big: data/big}")
    Path("folders.json").write_text(json.dumps(digests({"big": "data/big"}, Path())))
    OUTPUT.mkdir(parents=True)
    (OUTPUT / "a.txt").write_text("old")
    parameters = {"settings": "distill", "models": "data.models"}
    inputs = {"rows": "data/rows", "folders": "folders.json"}
    toy = Component("toy", "1.0.0", "toys.watched:run", inputs, parameters, resumes=True)
    monkeypatch.setitem(COMPONENTS, "toy", toy)
    monkeypatch.setattr("components.fingerprint.PACKAGE", tmp_path / "toys")
    monkeypatch.setattr(component_module, "PACKAGE", tmp_path / "toys")

    def start(meanwhile: Callable[[], object]) -> int:
        def work(*, output: Path, checkpoints: Path, **_: object) -> None:
            (checkpoints / "0-phase").mkdir()
            meanwhile()
            (output / "a.txt").write_text("new")

        monkeypatch.setattr(Component, "function", lambda self: work)
        return launcher.main(["toy"])

    return start


EDITS: dict[str, tuple[Callable[[], object], str, str, bool]] = {
    "a parameter": (
        lambda: replace("params.yaml", "temperature: 2.0", "temperature: 4.0"),
        "distill.temperature: 2.0 -> 4.0",
        "parameters",
        True,
    ),
    "code": (lambda: replace("toys/watched.py", "1", "2"), "toys/watched.py changed", "data", True),
    "an input": (lambda: replace("data/rows", "1234", "4321"), "data/rows changed", "data", False),
    "a model folder": (lambda: Path("data/big/new").touch(), "data/big changed", "data", False),
    "runtime.json": (lambda: replace("runtime.json", '"torch": "', '"torch": "1'), "torch: ", "data", True),
    "an input gone": (lambda: Path("data/rows").unlink(), "missing", "data", False),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_while_the_stage_runs_is_named_and_the_old_output_stays(
    edit: str, run: Callable[..., int], tmp_path: Path
) -> None:
    change, named, kind, kept = EDITS[edit]
    assert run(change) == 2
    error = recall("toy")
    assert error is not None
    assert named in error.message
    assert error.kind == kind
    assert (OUTPUT / "a.txt").read_text() == "old"
    assert bool(list(tmp_path.glob(CHECKPOINT))) == kept == ("checkpoints are kept" in error.remedy)


def test_what_does_not_change_the_result_may_be_edited(run: Callable[..., int]) -> None:
    def meanwhile() -> None:
        os.utime("data/rows", (1, 1))
        replace("params.yaml", "r: 8", "r: 4")

    assert run(meanwhile) == 0
    assert (OUTPUT / "a.txt").read_text() == "new"


def test_model_folders_that_validate_has_not_seen_are_refused(run: Callable[..., int]) -> None:
    Path("data/big/weights").write_text("4321")
    assert run(lambda: pytest.fail("it ran")) == 2
    error = recall("toy")
    assert isinstance(error, UserError)
    assert "data.models.big (data/big)" in error.message
    assert "validate first" in error.remedy
    assert error.kind == "data"


@pytest.mark.parametrize(("world", "stays"), [("1", False), ("2", True)])
def test_accelerates_variables_count_only_in_a_distributed_launch(
    world: str, stays: bool, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert run(lambda: None) == 0
    assert ("ACCELERATE_MIXED_PRECISION" in os.environ) == stays


def test_the_code_is_fingerprinted_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Reached(Exception):
        pass

    def import_it(_: Component) -> None:
        happened.append("imported")
        raise Reached

    monkeypatch.setattr(launcher, "load_params", lambda: SimpleNamespace(runtime=Runtime(threads=1)))
    done = dict.fromkeys(("check", "collect_rarely", "limit_threads"), lambda *_: None)
    monkeypatch.setattr(launcher, "runtime", SimpleNamespace(**done))
    monkeypatch.setattr(launcher, "_settle_environment", lambda: None)
    monkeypatch.setattr("components.fingerprint.parts", lambda *_: happened.append("fingerprinted"))
    for name in ("Watched", "check_models"):
        monkeypatch.setattr(launcher, name, lambda *_: None)
    monkeypatch.setattr(launcher, "_import", import_it)
    with pytest.raises(Reached):
        launcher._run("distill")
    assert happened == ["fingerprinted", "imported"]
