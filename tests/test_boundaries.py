"""The import contracts of pyproject.toml name every module that they are about; `make check` then keeps them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from components.component import COMPONENTS

ROOT = Path(__file__).parents[1]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS: dict[str, dict[str, Any]] = {
    contract["name"]: contract for contract in SETTINGS["tool"]["importlinter"]["contracts"]
}
# A stage is the top-level module or package of components that holds its function.
STAGES = {".".join(component.module.split(".")[:2]) for component in COMPONENTS.values()}


def modules(package: str) -> set[str]:
    """The modules and packages right in a package."""
    paths = [*(ROOT / package).glob("*.py"), *(path.parent for path in (ROOT / package).glob("*/__init__.py"))]
    return {f"{package}.{path.stem}" for path in paths if path.stem != "__init__"}


def test_every_stage_is_kept_from_the_others() -> None:
    assert set(CONTRACTS["Stages don't know each other"]["modules"]) == STAGES
    assert modules("components") >= STAGES


def test_ml_is_kept_from_every_stage() -> None:
    forbidden = CONTRACTS["ml/ is plain torch, transformers and peft: it knows no stage"]["forbidden_modules"]
    assert set(forbidden) >= STAGES | {"components.component"}


@pytest.mark.parametrize(
    ("contract", "exempt", "library"),
    [
        ("Only the checkout imports DVC", "flows.repo", "dvc"),
        ("Only tracking imports MLflow", "flows.tracking", "mlflow"),
    ],
)
def test_every_module_of_flows_but_one_is_kept_from_a_library(contract: str, exempt: str, library: str) -> None:
    assert set(CONTRACTS[contract]["source_modules"]) == modules("flows") - {exempt}
    assert library in CONTRACTS[contract]["forbidden_modules"]


def test_every_stage_but_the_data_gate_is_kept_from_great_expectations() -> None:
    sources = set(CONTRACTS["Great Expectations belongs to the data gate"]["source_modules"])
    assert sources == STAGES - {"components.validate"} | {"flows"}


def test_components_are_kept_from_all_that_flows_are_for() -> None:
    contract = CONTRACTS["Components are pure: no orchestration, no tracking, no versioning"]
    assert contract["source_modules"] == ["components"]
    assert {"flows", "prefect", "mlflow", "dvc"} <= set(contract["forbidden_modules"])


def test_every_package_is_installed_and_analysed() -> None:
    packages = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in ("components", "flows")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == packages
    assert SETTINGS["tool"]["importlinter"]["root_packages"] == ["components", "flows"]
