"""What the combinations of a sweep came to: their metrics, which is better, the ranked table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from components.errors import UserError
from components.ml.tasks.table import DEFAULT as TASK
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Task
from flows.compare import METRICS, TITLES
from flows.sweeping.grid import Combination, shown
from flows.tracking.headline import leading
from flows.tracking.record import gain_metrics, model_metrics

HEADLINE = TASKS[TASK].headline.key
DEFAULT = f"lora/{HEADLINE}"
_BESIDE = ("agreement_with_teacher", "parameters", "megabytes")
_SPEED = ("latency", "throughput")
_LOWER = ("loss", "latency", "megabytes", "parameters", "ece", "seconds", "error", "rmse")
DASH = "-"
_DVC_SAYS = ("ERROR: failed to reproduce", "Running stage", "> ")


@dataclass(frozen=True)
class Result:
    """How a combination ended: its metrics, or why it has none; ``outcomes`` tells of each stage what became of it."""

    combination: Combination
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)


def read_metrics(root: Path) -> dict[str, float]:
    """Every model's metrics as ``lora/accuracy``, and what was gained, under the names that MLflow has them by."""
    metrics = json.loads((root / METRICS).read_text(encoding="utf-8"))
    models = {
        f"{name}/{key}": value
        for name in metrics["models"]
        for key, value in model_metrics(metrics, None, name).items()
    }
    return models | gain_metrics(metrics)


def check_metric(name: str | None, task: Task = TASKS[TASK]) -> str:
    """The metric's name as it is used here; ``lora.accuracy`` means ``lora/accuracy``, None the task's headline.

    Raises:
        UserError: no combination can have such a metric.
    """
    name = name if name is not None else f"lora.{task.headline.key}"
    keys = [metric.key for metric in task.metrics] + ["ece"] * task.classes_per_row + [*_BESIDE]
    grouped = [f"{metric.key}_" for metric in leading(task)]
    model, slash, key = name.replace(".", "/", 1).partition("/")
    if not slash and name.startswith("gain_"):
        return name
    of_groups = ", ".join(f"{start}GROUP" for start in grouped)
    remedy = f"Models: {', '.join(TITLES)}. Metrics: {', '.join(keys)}, and {of_groups}."
    if key.startswith(_SPEED):
        raise UserError(
            f"--metric {name}: speed isn't measured in a sweep, where stages run side by side.", remedy, "parameters"
        )
    if model not in TITLES or not (key in keys or key.startswith((*grouped, "details."))):
        told = f"--metric {name}: expected MODEL.METRIC, such as lora.{task.headline.key}."
        raise UserError(told, remedy, "parameters")
    return f"{model}/{key}"


def lower_is_better(metric: str) -> bool:
    """Whether less of it is better, by its name."""
    words = metric.replace("/", "_").replace(".", "_").split("_")
    return any(word in _LOWER for word in words)


def ranked(results: Sequence[Result], metric: str) -> list[Result]:
    """Best first; those that lack the metric, then those that failed, stand last. Equals stay in the grid's order."""
    sign = 1 if lower_is_better(metric) else -1

    def place(result: Result) -> tuple[int, float, int]:
        value = result.metrics.get(metric, math.nan)
        rank = 2 if result.failure else 1 if math.isnan(value) else 0
        return rank, 0.0 if rank else sign * value, result.combination.number

    return sorted(results, key=place)


def rows(results: Sequence[Result], metric: str, headline: str = HEADLINE) -> list[list[str]]:
    """The table's header and lines, best first; ``headline`` is the key of the task's."""
    order = ranked(results, metric)
    keys = list(order[0].combination.values) if order else []
    beside = _beside(order, metric, headline)
    failed = any(result.failure for result in order)
    lines = [["", *keys, metric, *beside, "stages", *(["failed"] if failed else [])]]
    for place, result in enumerate(order, 1):
        cells = [DASH if result.failure else str(place), *(shown(result.combination.values[key]) for key in keys)]
        cells += [_cell(result, metric, interval=True), *(_cell(result, name) for name in beside)]
        lines.append([*cells, _stages(result), *([first_words(result.failure)] if failed else [])])
    return lines


def table(results: Sequence[Result], metric: str, headline: str = HEADLINE) -> Table:
    """For the terminal."""
    header, *lines = rows(results, metric, headline)
    better = "lower" if lower_is_better(metric) else "higher"
    made = Table(
        caption=f"Best first ({better} is better). Stages: run here, and restored from what was there or run once.",
        caption_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for name in header:
        made.add_column(escape(name), overflow="fold")
    for line in lines:
        made.add_row(*(escape(cell) for cell in line))
    return made


def markdown(results: Sequence[Result], metric: str, headline: str = HEADLINE) -> str:
    """For MLflow's and Prefect's pages."""
    header, *lines = rows(results, metric, headline)
    written = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in written)


def first_words(failure: str | None) -> str:
    """The line of a failure that says most: of a stage's output the last one of its own."""
    lines = [line for line in (failure or "").splitlines() if line.strip()]
    if not lines:
        return ""
    own = [line for line in lines[1:] if not line.startswith(_DVC_SAYS)]
    return (own[-1] if own and lines[0].endswith(":") else lines[0])[:160]


def _beside(results: Sequence[Result], metric: str, headline: str) -> list[str]:
    """The other metrics worth a column."""
    wanted = (f"student/{headline}", f"lora/{headline}", f"{metric.partition('/')[0]}/megabytes")
    return [name for name in wanted if name != metric and any(name in result.metrics for result in results)]


def _cell(result: Result, metric: str, *, interval: bool = False) -> str:
    value = result.metrics.get(metric)
    if value is None:
        return DASH
    low, high = (result.metrics.get(f"{metric}_ci_{end}") for end in ("low", "high"))
    text = _number(value)
    return f"{text} ({_number(low)} to {_number(high)})" if interval and low is not None and high is not None else text


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _stages(result: Result) -> str:
    ran = sum(outcome == "ran" for outcome in result.outcomes.values())
    return f"{ran} run, {len(result.outcomes) - ran} restored"
