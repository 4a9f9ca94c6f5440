"""The number that models are compared and promoted by, whatever the task, and how its values are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Metric, Task

ACCURACY = TASKS[DEFAULT].headline


def task_of(metrics: Mapping[str, Any]) -> Task:
    """The task that metrics.json, or what is made of it, is about; older ones name none."""
    return TASKS[metrics.get("task") or DEFAULT]


def headline_of(metrics: Mapping[str, Any]) -> Metric:
    """The headline that metrics.json, or what is made of it, has."""
    task = task_of(metrics)
    key = metrics.get("headline") or task.headline.key
    return next((metric for metric in task.metrics if metric.key == key), task.headline)


def beside(task: Task) -> tuple[Metric, ...]:
    """The metrics that a comparison shows beside the headline."""
    return task.metrics[1:2] if task.name == DEFAULT else task.metrics[1:]


def leading(task: Task) -> tuple[Metric, ...]:
    """The metrics that are told of every group, and where there is room for few."""
    return task.metrics[:2]


def has_right_rows(task: Task) -> bool:
    """Whether a row is predicted right or wrong, and not only more or less right."""
    return task.right([], []) is not None


def number(metric: Metric, value: float) -> str:
    """A value without its sign for per cent."""
    return f"{100 * value:.1f}" if metric.percent else f"{value:.3f}"


def share(metric: Metric, value: float) -> str:
    """A value with its sign for per cent, where it has one."""
    return f"{number(metric, value)}{'%' if metric.percent else ''}"


def change(metric: Metric, value: float) -> str:
    """A difference with its sign; one that rounds to nothing has a plus."""
    return f"{round(100 * value, 1) + 0.0:+.1f}" if metric.percent else f"{round(value, 3) + 0.0:+.3f}"


def unit(metric: Metric) -> str:
    """What a difference is counted in."""
    return f"points of {metric.name}" if metric.percent else f"of {metric.name}"


def span(metric: Metric, bounds: Sequence[float] | None, between: str = " to ") -> str:
    """An interval; empty where there is none."""
    return between.join(number(metric, bound) for bound in bounds) if bounds else ""


def capital(words: str) -> str:
    """With a capital first letter."""
    return words[:1].upper() + words[1:]
