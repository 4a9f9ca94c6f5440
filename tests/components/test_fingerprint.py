"""A fingerprint changes with everything that a result depends on, and with nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components import fingerprint
from components.component import COMPONENTS
from components.loader import load_params
from tests.conftest import lay_out_teacher

CODE = "components/ml/training/losses.py"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the stage teacher reads, by name alone."""
    lay_out_teacher(tmp_path)
    return tmp_path


def parts(project: Path) -> fingerprint.Parts:
    found = fingerprint.parts(COMPONENTS["teacher"], load_params(project / "params.yaml"), project)
    assert found is not None
    return found


CHANGES: dict[str, Callable[[Path], object]] = {
    "parameters": lambda root: replace(root / "params.yaml", "lr: 8.0e-5", "lr: 9.0e-5"),
    "code": lambda root: replace(root / CODE, "from __future__", "# An edit.\nfrom __future__"),
    "runtime": lambda root: replace(root / "runtime.json", '"torch": "', '"torch": "1'),
    "a file": lambda root: (root / "artifacts/validate/schema.json").write_text("else"),
    "a file in a folder": lambda root: (root / "data/base_model/deep/weights").write_text("4321"),
    "a file's name": lambda root: (root / "data/base_model/deep/weights").rename(root / "data/base_model/deep/other"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_the_stage_reads_changes_it(change: str, project: Path) -> None:
    before = fingerprint.digest(parts(project))
    CHANGES[change](project)
    assert fingerprint.digest(parts(project)) != before


def test_a_change_of_anything_else_does_not(project: Path) -> None:
    before = fingerprint.digest(parts(project))
    replace(project / "params.yaml", "alpha: 0.9", "alpha: 0.8")
    replace(project / "params.yaml", "every: 100", "every: 10")
    replace(project / "components/evaluate/stage.py", "from __future__", "# An edit.\nfrom __future__")
    replace(project / "components/component.py", "from __future__", "# An edit.\nfrom __future__")
    (project / "artifacts/validate/report.json").write_text("{}")
    assert fingerprint.digest(parts(project)) == before


def test_links_to_dvcs_cache_count_as_what_they_lead_to(project: Path) -> None:
    before = parts(project)
    file = project / "data/base_model/deep/weights"
    shutil.move(file.parent, project / "cache")
    file.parent.symlink_to(project / "cache")
    assert parts(project) == before


def test_without_an_input_there_is_none(project: Path) -> None:
    (project / "artifacts/validate/schema.json").unlink()
    params = load_params(project / "params.yaml")
    assert fingerprint.parts(COMPONENTS["teacher"], params, project) is None
    assert fingerprint.parts(COMPONENTS["distill"], params, project) is None


def test_the_parts_survive_being_written_down(project: Path) -> None:
    assert json.loads(json.dumps(parts(project))) == parts(project)


def test_what_differs_is_named(project: Path) -> None:
    before = parts(project)
    for change in CHANGES.values():
        change(project)
    now = parts(project)
    assert fingerprint.other_code(before, now) == [CODE]
    named = fingerprint.other_inputs(before, now)
    assert "teacher.phases.general.lr: 8e-05 -> 9e-05" in named
    assert any(line.startswith("torch: 2") for line in named)
    assert {"artifacts/validate/schema.json changed", "data/base_model changed"} <= set(named)
