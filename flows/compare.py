"""The comparison of the models: as data, as a table, as Markdown and in plain sentences."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from components.errors import UserError
from components.ml.tasks.table import DEFAULT
from components.ml.tasks.task import Metric
from flows import markup
from flows.models import contents
from flows.tracking.headline import beside, capital, change, headline_of, number, span, task_of, unit

METRICS = Path("artifacts/evaluate/metrics.json")
BENCHMARK = Path("reports/benchmark.json")
TITLES = {
    "teacher": "teacher",
    "student_without_distillation": "student without\ndistillation",
    "student": "student",
    "lora_without_distillation": "{} without\ndistillation",
    "lora": "{} student",
    "lora_onnx": "{} student,\nONNX",
    "lora_int8": "{} student,\nint8",
}
ADAPTERS = ("artifacts/finetune/adapter", "artifacts/finetune/model/adapter")
METHODS = {
    "LORA": "LoRA",
    "IA3": "IA3",
    "PROMPT_TUNING": "prompt tuning",
    "PREFIX_TUNING": "prefix tuning",
    "P_TUNING": "P-tuning",
}
FINE_TUNING = "fine-tuning"
"""The method where the last phase of ``finetune`` trains no adapters."""
NAMED_LEFT_OUT = 6
HEADER_WIDTH = 14
SPEED = ("latency_p50_ms", "latency_p95_ms", "throughput_per_s")
DASH = "-"


@dataclass(frozen=True)
class Column:
    """A column of the table: a cell for each model; the least needed columns go first when space is short."""

    header: str
    cells: list[str]
    need: int

    @property
    def width(self) -> int:
        """Terminal cells that the widest line takes; a Chinese character takes two."""
        return max(cell_len(line) for cell in (self.header, *self.cells) for line in cell.split("\n"))


def comparison(root: Path) -> dict[str, Any]:
    """Quality, size and speed of every model, differences with intervals, and ratios to the teacher.

    Speed is None where these very models were not measured; ``ratios`` holds how many times smaller (``size``)
    and faster (``latency``, ``throughput``) than the teacher a model is.

    Raises:
        UserError: nothing is evaluated yet, or not since gains are, or the file is damaged.
    """
    metrics = _read(root / METRICS)
    if metrics is None or "gains" not in metrics:
        raise UserError("Nothing is evaluated yet.", "Run the pipeline: `stillhouse run`.", "nothing")
    speeds = (_read(root / BENCHMARK) or {}).get("models", {}) if measured(root) else {}
    models = {
        name: metrics["models"][name] | {key: speeds.get(name, {}).get(key) for key in SPEED}
        for name in TITLES
        if name in metrics["models"]
    }
    for model in models.values():
        model["ratios"] = _ratios(model, models["teacher"])
    return metrics | {"models": models, "method": _method(root)}


def _method(root: Path) -> str:
    """How the student was tuned for its group, by what its last phase left behind."""
    for folder in ADAPTERS:
        found = _read(root / folder / "adapter_config.json")
        if found is not None:
            return METHODS.get(str(found.get("peft_type")), FINE_TUNING)
    return FINE_TUNING


def title(root: Path, model: str) -> str:
    """A model's name for people, on one line."""
    method = _method(root)
    tuned = "fine-tuned" if method == FINE_TUNING else method
    return TITLES.get(model, model).format(tuned).replace("\n", " ")


def measured(root: Path) -> bool:
    """Whether reports/benchmark.json is about the models that dvc.lock names."""
    return (_read(root / BENCHMARK) or {}).get("content") == contents(root)


def table(comparison: dict[str, Any], width: int = 100) -> Table:
    """The comparison as a table of at most ``width`` cells; the columns that don't fit are named below it."""
    columns, left_out = _fitting(_columns(comparison), width)
    caption = _caption(comparison)
    if left_out:
        rest = len(left_out) - NAMED_LEFT_OUT
        named = left_out[:NAMED_LEFT_OUT] + ([f"{rest} more"] if rest > 0 else [])
        caption += f" Left out for width: {', '.join(named)}."
    made = Table(caption=escape(caption), caption_justify="left", pad_edge=False, box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        made.add_column(escape(column.header), justify="left" if index == 0 else "right", no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*(escape(cell) for cell in cells))
    return made


def markdown(comparison: dict[str, Any]) -> str:
    """The whole comparison as a Markdown table and sentences, for an artifact that people read in a browser."""
    columns = _columns(comparison)
    lines = [
        _markdown_row(column.header for column in columns),
        _markdown_row("---" if index == 0 else "---:" for index in range(len(columns))),
        *(_markdown_row(cells) for cells in zip(*(column.cells for column in columns), strict=True)),
    ]
    said = [f"- {markup.markdown(sentence)}" for sentence in verdicts(comparison)]
    return "\n".join(
        [*lines, "", f"{comparison['rows']} test rows from {comparison['documents']} documents.", "", *said]
    )


def verdicts(comparison: dict[str, Any]) -> list[str]:
    """What the numbers say, in sentences: what the student keeps, what distillation gained, what tuning it gained."""
    models, gains, headline = comparison["models"], comparison["gains"], headline_of(comparison)
    score, teachers = (models[name][headline.key] for name in ("student", "teacher"))
    ours, theirs = (number(headline, value) for value in (score, teachers))
    kept = (
        f"The student keeps {score / teachers:.1%} of the teacher's {headline.name} ({ours} against {theirs})"
        if teachers > 0
        else f"The teacher's {headline.name} is {theirs}, so there is nothing to keep; the student's is {ours}"
    )
    sentences = [f"{kept}{_cheaper(models['student']['ratios'])}."]
    told = _gain(gains["distillation"], comparison)
    sentences.append(f"Distillation, against the same student without it: {told}.")
    method = comparison["method"]
    sentences += _of_the_tuned(f"{capital(method)} on {{}}: {{}}.", gains["lora"], comparison)
    if "distillation_before_lora" in gains:
        told = f"Distillation before {method}, against {method} alone, on {{}}: {{}}."
        sentences += _of_the_tuned(told, gains["distillation_before_lora"], comparison)
    return sentences


def titles(comparison: dict[str, Any]) -> dict[str, str]:
    """The models' names for people, by model; a line's end stands where a narrow label may be broken."""
    tuned = "fine-tuned" if comparison["method"] == FINE_TUNING else comparison["method"]
    return {name: TITLES[name].format(tuned) for name in comparison["models"]}


def _of_the_tuned(sentence: str, gain: dict[str, Any], comparison: dict[str, Any]) -> list[str]:
    """A gain on the target group, and on all rows; once where that is the same."""
    group, said = comparison["target_group"], [sentence.format("all rows", _gain(gain, comparison))]
    if group == "all":
        return said
    told = _gain(gain["target"], comparison) if "target" in gain else "no test rows of that group"
    return [sentence.format(group, told), *said]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.", "Write it again: `stillhouse run`.", "data") from None
    return found


def _ratios(model: dict[str, Any], teacher: dict[str, Any]) -> dict[str, float | None]:
    """How many times smaller and faster than the teacher."""

    def ratio(over: Any, under: Any) -> float | None:
        return over / under if over and under else None

    return {
        "size": ratio(teacher["megabytes"], model["megabytes"]),
        "latency": ratio(teacher["latency_p50_ms"], model["latency_p50_ms"]),
        "throughput": ratio(model["throughput_per_s"], teacher["throughput_per_s"]),
    }


def _columns(comparison: dict[str, Any]) -> list[Column]:
    """All columns; groups stand beside the headline, the target group being the one to keep longest."""
    models, target = comparison["models"], comparison["target_group"]
    headline = headline_of(comparison)

    def column(header: str, need: int, cell: Callable[[dict[str, Any]], str]) -> Column:
        return Column(header, [cell(model) for model in models.values()], need)

    groups = list(models["teacher"]["groups"])
    return [
        Column("model", list(titles(comparison).values()), 10),
        column(_header(headline.name), 9, lambda model: _with_interval(model, headline)),
        *(
            column(header, 3 if place < 2 else 1, lambda model, metric=metric: _score(model, metric))  # type: ignore[misc]
            for place, (header, metric) in enumerate(_beside(comparison))
        ),
        *(
            column(group, 7 if group == target else 5, lambda model, group=group: _group(model, group, headline))  # type: ignore[misc]
            for group in groups
        ),
        column("agree", 2, lambda model: _percent(model["agreement_with_teacher"])),
        column("params", 4, lambda model: _millions(model["parameters"])),
        column("MB", 6, lambda model: f"{model['megabytes']:.1f}\n{_times(model['ratios']['size'])}"),
        column("p50 ms", 8, lambda model: f"{_number(model['latency_p50_ms'])}\n{_times(model['ratios']['latency'])}"),
        column(
            "texts/s",
            8,
            lambda model: f"{_number(model['throughput_per_s'])}\n{_times(model['ratios']['throughput'])}",
        ),
    ]


def _beside(comparison: dict[str, Any]) -> list[tuple[str, Metric]]:
    """The other metrics of the task that were measured, with their headers."""
    found = [
        metric
        for metric in beside(task_of(comparison))
        if any(metric.key in model for model in comparison["models"].values())
    ]
    named = {"macro_f1": "F1"} if task_of(comparison).name == DEFAULT else {}
    return [(named.get(metric.key, _header(metric.name)), metric) for metric in found]


def _header(name: str) -> str:
    """A metric's name in lines that aren't much wider than its numbers."""
    return "\n".join(textwrap.wrap(name, HEADER_WIDTH, break_long_words=False))


def _fitting(columns: list[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit, and the headers of those that had to go."""
    kept: list[Column] = list(columns)
    gone: list[Column] = []
    while len(kept) > 1 and sum(column.width + 2 for column in kept) > width + 2:
        least = min(reversed(kept), key=lambda column: column.need)
        kept.remove(least)
        gone.append(least)
    return kept, [column.header.replace("\n", " ") for column in columns if column in gone]


def _markdown_row(cells: Iterable[str]) -> str:
    lines = (cell.strip().split("\n") for cell in cells)
    return "| " + " | ".join("<br>".join(markup.markdown(line) for line in cell) for cell in lines) + " |"


def _caption(comparison: dict[str, Any]) -> str:
    rows, documents = comparison["rows"], comparison["documents"]
    return (
        f"{rows} test rows from {documents} documents. Scores in %{as_measured(comparison)}, with "
        f"{_confidence(comparison)} intervals; x: times smaller or faster than the teacher."
    )


def as_measured(comparison: dict[str, Any]) -> str:
    """The metrics that aren't shares."""
    metrics = [headline_of(comparison), *(metric for _, metric in _beside(comparison))]
    others = [metric.name for metric in metrics if not metric.percent]
    return f" ({' and '.join(others)} as measured)" if others else ""


def _confidence(comparison: dict[str, Any]) -> str:
    return f"{100 * comparison['confidence']:.4g}%"


def _cheaper(ratios: dict[str, float | None]) -> str:
    """How the student's costs compare, as the end of a sentence."""
    parts = []
    if ratios["size"]:
        parts.append(f"{1 / ratios['size']:.0%} of its size")
    if ratios["throughput"]:
        parts.append(f"{ratios['throughput']:.1f} times its throughput")
    return ", at " + " and ".join(parts) if parts else ""


def _gain(gain: dict[str, Any], comparison: dict[str, Any]) -> str:
    """What was gained or lost, or that nothing was for all that is known; and over how much that was measured."""
    headline, (low, high) = headline_of(comparison), gain["ci"]
    interval = f"{_confidence(comparison)} interval {change(headline, low)} to {change(headline, high)}"
    said = "a clear gain" if low > 0 else "a clear loss" if high < 0 else "no clear gain"
    if said == "no clear gain":
        interval = f"the {interval} includes 0"
    over = f"over {_seeds(gain)} and {_count(gain['documents'], 'test document')}"
    return f"{said}, {change(headline, gain[headline.key])} {unit(headline)} ({interval}; {over})"


def _seeds(gain: dict[str, Any]) -> str:
    """One seed says nothing of the next, which is worth saying."""
    return f"{gain['seeds']} seeds" if gain["seeds"] > 1 else "1 seed, so without the spread of seeds,"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _group(model: dict[str, Any], group: str, headline: Metric) -> str:
    return _score(model["groups"][group], headline) if group in model["groups"] else DASH


def _score(scores: dict[str, Any], metric: Metric) -> str:
    return DASH if scores.get(metric.key) is None else number(metric, scores[metric.key])


def _with_interval(model: dict[str, Any], metric: Metric) -> str:
    bounds = model.get(f"{metric.key}_ci")
    # A hyphen would read as a sign where a bound is below 0.
    return f"{_score(model, metric)}\n{span(metric, bounds, '-' if not bounds or bounds[0] >= 0 else ' to ')}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}x"
