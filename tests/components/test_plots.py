"""Pictures and tables of any task: its headline, and a line in place of what takes rows with one class each."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.tables import write_tables
from components.ml.tasks.table import TASKS
from components.plots import draw, validated

OTHERS = [name for name, task in TASKS.items() if not task.classes_per_row]


def written(folder: Path, name: str) -> None:
    task = TASKS[name]
    key, measured = task.headline.key, validated(task).key
    scores = {key: -0.1, f"{key}_ci": [-0.3, 0.2]}
    groups: dict[str, Any] = {group: {**scores, key: 0.5, "rows": 5} for group in ("a", "新闻")}
    models: dict[str, Any] = {model: {**scores, "groups": groups} for model in ("teacher", "student", "lora")}
    history = [{"phase": "p", "step": 10, "loss": 1.1}, {"phase": "p", "step": 20, "eval_loss": 1.0}]
    history[1][f"eval_{measured}"] = 0.5
    histories = {model: history if model != "teacher" else [] for model in models}
    folder.mkdir()
    write_tables(folder, models, {}, {}, histories, [], task=task)
    draw(folder, models, {}, {}, histories, [], task=task)


@pytest.mark.parametrize("name", OTHERS)
def test_a_task_without_classes_has_every_file_that_dvc_yaml_names(tmp_path: Path, name: str) -> None:
    written(tmp_path / "plots", name)
    task, pictures = TASKS[name], {}
    for path in (tmp_path / "plots").glob("*.svg"):
        pictures[path.stem] = path.read_text(encoding="utf-8")
        ET.fromstring(pictures[path.stem])
    assert set(pictures) == {"confusion", "reliability", "groups", "training"}
    for stem in ("confusion", "reliability"):
        assert f"{name} has no such picture" in pictures[stem]
    assert f"{task.headline.name} on the test rows" in pictures["groups"]
    assert f"points: {validated(task).name} on the validation rows" in pictures["training"]
    for kind, header in (("confusion", "actual,predicted"), ("reliability", "confidence,accuracy,rows")):
        for model in ("teacher", "lora", "lora_int8"):
            assert (tmp_path / f"plots/{kind}/{model}.csv").read_text(encoding="utf-8") == f"{header}\n"


@pytest.mark.parametrize("name", OTHERS)
def test_columns_are_named_by_what_was_measured(tmp_path: Path, name: str) -> None:
    written(tmp_path / "plots", name)
    groups = (tmp_path / "plots/groups.csv").read_text(encoding="utf-8").splitlines()
    assert groups[:2] == [f"model,group,{TASKS[name].headline.key},low,high,rows", "teacher,a,0.5,-0.3,0.2,5"]
    curve = (tmp_path / "plots/validation/lora.csv").read_text(encoding="utf-8").splitlines()
    assert curve == ["phase,step,loss,score", "p,20,1.0,0.5"]


def test_of_the_validation_rows_the_headline_is_shown_or_else_what_is_measured_first() -> None:
    shown = {name: validated(task).key for name, task in TASKS.items()}
    assert shown["text-classification"] == "accuracy"
    assert shown["question-answering"] == TASKS["question-answering"].headline.key
    assert shown["relation-classification"] in TASKS["relation-classification"].validated
