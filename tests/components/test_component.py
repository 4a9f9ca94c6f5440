"""The table of components, dvc.yaml and params.yaml say the same; versions follow the code."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from components.component import COMPONENTS, PACKAGE, Component, code_closure, partial_folder
from components.loader import load_params, load_yaml
from components.runtime import RUNTIME_FILE

ROOT = Path(__file__).parents[2]
STAGES = load_yaml(ROOT / "dvc.yaml")["stages"]
names = pytest.mark.parametrize("name", COMPONENTS)


def test_the_graph_has_just_the_components() -> None:
    assert list(STAGES) == list(COMPONENTS)


@names
def test_dvc_yaml_names_the_components_inputs_code_and_runtime(name: str) -> None:
    component = COMPONENTS[name]
    code = {path.relative_to(ROOT).as_posix() for path in code_closure(component.module)}
    expected = set(component.inputs.values()) | code | {RUNTIME_FILE.as_posix()}
    assert set(STAGES[name]["deps"]) == expected, f"dvc.yaml, {name}: deps should be {sorted(expected)}"


@names
def test_dvc_yaml_names_the_components_parameters_and_output(name: str) -> None:
    component = COMPONENTS[name]
    assert set(STAGES[name]["params"]) == set(component.parameters.values())
    assert STAGES[name]["outs"] == [component.output.as_posix()]
    assert STAGES[name]["cmd"] == f"python -m components {name}"


@names
def test_a_component_takes_just_what_the_table_gives(name: str) -> None:
    component = COMPONENTS[name]
    arguments = component.arguments(load_params(ROOT / "params.yaml"))
    assert set(inspect.signature(component.function()).parameters) == {*arguments, "output"}


def test_the_code_closure_follows_lazy_imports_but_not_the_launcher() -> None:
    found = {path.relative_to(PACKAGE).as_posix() for path in code_closure("components.distill")}
    assert {"distill.py", "ml/training/losses.py", "ml/models/students.py", "params/phases.py"} <= found
    assert not {"__main__.py", "component.py", "finetune.py"} & found


def test_a_version_is_the_declared_one_and_a_hash_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toys"
    package.mkdir()
    (package / "one.py").write_text("from toys.two import x\n")
    (package / "two.py").write_text("x = 1\n")
    (package / "three.py").write_text("y = 1\n")
    monkeypatch.setattr("components.component.PACKAGE", package)
    component = Component("one", "1.2.0", "toys.one:run", {}, {})
    before = component.full_version()
    assert before.startswith("1.2.0+")
    (package / "three.py").write_text("y = 2\n")
    assert component.full_version() == before
    (package / "two.py").write_text("x = 2\n")
    assert component.full_version() != before


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Component:
    """A component that writes one file, or fails after writing it when params say seed 1."""
    (tmp_path / "toy_component.py").write_text(
        "def run(*, seed, output):\n"
        "    (output / 'a.txt').write_text(str(seed))\n"
        "    if seed == 1: raise ValueError('no')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Component("toy", "1.0.0", "toy_component:run", {}, {"seed": "seed"})


def test_a_failed_run_leaves_the_earlier_output_whole(toy: Component) -> None:
    params = load_params(ROOT / "params.yaml")
    toy.run(params.model_copy(update={"seed": 7}))
    with pytest.raises(ValueError, match="no"):
        toy.run(params.model_copy(update={"seed": 1}))
    assert (toy.output / "a.txt").read_text() == "7"


def test_leftovers_of_a_killed_run_do_not_get_into_the_output(toy: Component) -> None:
    leftover = partial_folder(toy.output)
    leftover.mkdir(parents=True)
    (leftover / "half.txt").write_text("half")
    toy.run(load_params(ROOT / "params.yaml"))
    assert [path.name for path in toy.output.iterdir()] == ["a.txt"]
