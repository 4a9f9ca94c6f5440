"""Ranking, direction, names of metrics, and the table."""

from __future__ import annotations

from typing import Any

import pytest

from components.errors import UserError
from components.ml.tasks.table import TASKS
from flows.sweeping.grid import Combination
from flows.sweeping.results import Result, check_metric, lower_is_better, markdown, ranked, rows


def result(number: int, failure: str | None = None, **metrics: Any) -> Result:
    found = {key.replace("__", "/"): value for key, value in metrics.items()}
    return Result(Combination(number, {"distill.temperature": number}), found, failure, {"a": "ran", "b": "restored"})


def order(results: list[Result], metric: str) -> list[int]:
    return [each.combination.number for each in ranked(results, metric)]


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("lora/accuracy", False),
        ("lora/macro_f1_products", False),
        ("student/agreement_with_teacher", False),
        ("lora/ece", True),
        ("student/megabytes", True),
        ("student/parameters", True),
        ("toy/loss", True),
        ("student/latency_p50_ms", True),
        ("student/throughput_per_s", False),
        ("gain_distillation", False),
        ("student/macro_recall", False),  # not every "ece" is one
    ],
)
def test_the_direction_of_a_metric_is_told_by_its_name(metric: str, lower: bool) -> None:
    assert lower_is_better(metric) == lower


def test_best_first_then_those_without_the_metric_then_those_that_failed() -> None:
    found = [result(1, lora__accuracy=0.8), result(2, "broken"), result(3), result(4, lora__accuracy=0.9)]
    found += [result(5, lora__accuracy=float("nan")), result(6, lora__accuracy=0.9)]
    assert order(found, "lora/accuracy") == [4, 6, 1, 3, 5, 2]
    assert order([result(1, m__ece=0.2), result(2, m__ece=0.1)], "m/ece") == [2, 1]


def test_the_table_has_parameters_intervals_sizes_and_reasons() -> None:
    good = result(1, lora__accuracy=0.9, lora__accuracy_ci_low=0.85, lora__accuracy_ci_high=0.94, lora__megabytes=55.2)
    output = ["> python -m x", "KeyError: 'x|y'", "ERROR: failed to reproduce 'distill'"]
    bad = result(2, "\n".join(["The stage distill ended with code 1. The end of its output:", *output]))
    header, first, second = rows([bad, good], "lora/accuracy")
    assert header == ["", "distill.temperature", "lora/accuracy", "lora/megabytes", "stages", "failed"]
    assert first == ["1", "1", "0.9 (0.85 to 0.94)", "55.2", "1 run, 1 restored", ""]
    assert second == ["-", "2", "-", "-", "1 run, 1 restored", "KeyError: 'x|y'"]
    assert "KeyError: 'x\\|y'" in markdown([bad, good], "lora/accuracy")


def test_a_dot_or_a_slash_stands_between_model_and_metric() -> None:
    assert check_metric("lora.accuracy") == check_metric("lora/accuracy") == "lora/accuracy"
    assert check_metric("student.macro_f1_products") == "student/macro_f1_products"
    assert check_metric("gain_distillation") == "gain_distillation"


@pytest.mark.parametrize("name", ["accuracy", "lora.acuracy", "lara.accuracy", "lora.", ""])
def test_a_metric_that_no_combination_has_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"MODEL\.METRIC") as caught:
        check_metric(name)
    assert "agreement_with_teacher" in caught.value.remedy


def test_speed_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="speed isn't measured in a sweep"):
        check_metric("lora.latency_p50_ms")


def test_any_task_is_ranked_by_its_headline_unless_asked_otherwise() -> None:
    token, regression = TASKS["token-classification"], TASKS["regression"]
    assert (check_metric(None), check_metric(None, token)) == ("lora/accuracy", "lora/f1")
    assert check_metric("student.recall", token) == "student/recall"
    assert check_metric("lora.pearson_products", regression) == "lora/pearson_products"
    assert check_metric("lora.details.person.f1", token) == "lora/details.person.f1"
    assert lower_is_better("lora/rmse")
    with pytest.raises(UserError, match=r"such as lora\.pearson\."):
        check_metric("lora.accuracy", regression)
    with pytest.raises(UserError, match=r"such as lora\.f1\."):
        check_metric("lora.ece", token)


def test_the_headline_of_the_task_stands_beside() -> None:
    header = rows([result(1, lora__recall=0.9, lora__f1=0.8, student__f1=0.7)], "lora/recall", "f1")[0]
    assert header[2:5] == ["lora/recall", "student/f1", "lora/f1"]
