"""The metrics of every model have the same names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.ml.tasks.table import TASKS
from flows.tracking.record import PipelineRecord, figures, gain_metrics, metric_name, model_metrics, phase_params
from tests.flows import of_tasks

SCORES = {
    "accuracy": 0.9,
    "accuracy_ci": [0.8, 0.95],
    "agreement_with_teacher": None,
    "groups": {"影评": {"accuracy": 0.7, "macro_f1": 0.6, "rows": 3}},
}


def test_every_model_has_the_same_metric_names(finished_run: PipelineRecord) -> None:
    names = {frozenset(model.metrics) for model in finished_run.models}
    assert len(names) == 1
    assert {"accuracy", "macro_f1", "ece", "megabytes", "latency_p50_ms", "accuracy_影评"} <= set(*names)


def test_a_metric_that_was_not_measured_is_left_out() -> None:
    found = model_metrics({"models": {"lora": SCORES}}, None, "lora")
    assert found == {
        "accuracy": 0.9,
        "accuracy_ci_low": 0.8,
        "accuracy_ci_high": 0.95,
        "accuracy_影评": 0.7,
        "macro_f1_影评": 0.6,
    }


def test_group_names_that_mlflow_forbids_stay_distinct() -> None:
    assert metric_name("a/b") != metric_name("a?b") != metric_name("a_b")
    assert metric_name("影评 2.0") == "影评 2.0"


def test_gains_become_metrics_on_all_rows_and_on_the_target_group() -> None:
    gain = {"accuracy": 0.02, "ci": [-0.01, 0.05], "seeds": 3, "documents": 90}
    target = {"accuracy": 0.04, "ci": [0.01, 0.06], "seeds": 3, "documents": 30}
    assert gain_metrics({"gains": {"distillation": gain, "lora": gain | {"target": target}}}) == {
        **{"gain_distillation": 0.02, "gain_distillation_low": -0.01, "gain_distillation_high": 0.05},
        **{"gain_lora": 0.02, "gain_lora_low": -0.01, "gain_lora_high": 0.05},
        **{"gain_lora_target": 0.04, "gain_lora_target_low": 0.01, "gain_lora_target_high": 0.06},
        "seeds": 3,
    }


def test_each_phase_tells_how_many_of_how_many_parameters_it_trained(tmp_path: Path) -> None:
    sizes = {"trainable_parameters": 12, "parameters": 345, "rows": 67}
    told = [
        {"name": "adapt", "objective": "mlm", **sizes},
        {"name": "领域", "objective": "labels", "steps": 8, **sizes},
    ]
    (tmp_path / "phases.json").write_text(json.dumps(told), encoding="utf-8")
    found = phase_params(tmp_path / "phases.json")
    assert found["phase.adapt.objective"] == "mlm"
    for name in ("adapt", "领域"):
        assert {key: found[f"phase.{name}.{key}"] for key in sizes} == sizes
    assert len(found) == 8


def test_a_model_that_was_taken_as_it_was_has_no_phases(tmp_path: Path) -> None:
    assert phase_params(tmp_path / "phases.json") == {}
    (tmp_path / "phases.json").write_text("[]")
    assert phase_params(tmp_path / "phases.json") == {}


@pytest.mark.parametrize("task", list(of_tasks.NAMES))
def test_every_number_of_any_task_is_a_metric(task: str) -> None:
    found = of_tasks.evaluated(task)[0]
    names, headline = model_metrics(found, None, "lora"), found["headline"]
    scores = found["models"]["lora"]
    assert names[headline] == scores[headline]
    assert names[f"{headline}_ci_low"] == scores[f"{headline}_ci"][0]
    assert names[f"{headline}_products"] == scores["groups"]["products"][headline]
    numbers = {key for key, value in scores.items() if isinstance(value, int | float)}
    assert numbers <= set(names)
    assert gain_metrics(found)["gain_distillation_target"] == 0.021
    first = figures(names, TASKS[task]).split(", ")[0]
    assert first == f"{scores[headline]:.1%} {TASKS[task].headline.name}"


def test_scores_by_type_are_metrics_too() -> None:
    found = of_tasks.evaluated("token-classification")[0]
    names = model_metrics(found, None, "lora")
    assert names["details.人.f1"] == found["models"]["lora"]["details"]["人"]["f1"]
