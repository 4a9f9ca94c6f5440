"""The metrics of every model have the same names."""

from __future__ import annotations

from flows.tracking.record import PipelineRecord, metric_name, model_metrics

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
