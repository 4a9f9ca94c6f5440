"""The evaluation's pictures as SVG: the same numbers give the same bytes.

Text stays text, so the viewer's fonts show labels in any script. Widths are estimated here rather than measured, so a
picture doesn't depend on the fonts of the machine that drew it.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from components.ml.statistics.metrics import Reliability
from components.ml.tasks.task import Metric, Task

# Okabe & Ito's palette, safe for colour-blind readers; markers tell the models apart without colour.
LOOKS = {
    "teacher": ("teacher", "#444444", "s"),
    "student_without_distillation": ("student without distillation", "#E69F00", "^"),
    "student": ("student", "#0072B2", "o"),
    "lora_without_distillation": ("LoRA without distillation", "#D55E00", "v"),
    "lora": ("LoRA student", "#009E73", "D"),
    "lora_onnx": ("LoRA student, ONNX", "#CC79A7", "P"),
    "lora_int8": ("LoRA student, int8", "#56B4E9", "X"),
}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "stillhouse",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}
MOST_GROUPS, MOST_ANNOTATED, MOST_NAMED = 24, 12, 40
LABEL_WIDTH = 24
LEGEND_WIDTH = 4  # models in one line


def draw(
    folder: Path,
    models: dict[str, Any],
    confusions: dict[str, np.ndarray],
    curves: dict[str, Reliability],
    histories: dict[str, list[dict[str, Any]]],
    class_names: Sequence[str],
    *,
    task: Task,
) -> None:
    """Write confusion.svg, reliability.svg, groups.svg and training.svg into ``folder``; see ``write_tables``."""
    errors = {name: models[name]["ece"] for name in curves}
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The viewer has the glyphs that the font used for layout lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figures = {
            "confusion": confusion_figure(confusions, class_names) if confusions else _none(task, "a confusion matrix"),
            "reliability": reliability_figure(curves, errors) if curves else _none(task, "a reliability diagram"),
            "groups": groups_figure(models, task.headline),
            "training": training_figure(histories, validated(task)),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def validated(task: Task) -> Metric:
    """What of the validation rows is shown: the headline, or the first metric that phases measure where they don't."""
    measured = [key for key in task.validated if key != "loss"]
    key = task.headline.key if task.headline.key in measured or not measured else measured[0]
    return next((metric for metric in task.metrics if metric.key == key), Metric(key, key.replace("_", " ")))


def _none(task: Task, what: str) -> Figure:
    """In place of a picture that is made of rows with one class each."""
    words = f"{task.name} has no such picture: {what} takes rows with one class each."
    figure = Figure(figsize=(_inches([words]), 0.5))
    figure.text(0.5, 0.5, words, ha="center", va="center", color="#777777")
    return figure


def confusion_figure(confusions: dict[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """Actual against predicted class of each model; colour and percentages are shares of the actual class."""
    names = [shorten(name) for name in class_names] if len(class_names) <= MOST_NAMED else []
    margin = _inches(names)
    side = min(6.0, max(2.0, 0.6 * len(class_names)))
    flat = margin <= side / len(class_names)
    bottom = 0.5 if flat else margin + 0.4
    figure, panels = _panels(len(confusions), side, side, left=margin + 0.45, bottom=bottom, gap=0.3)
    for axes, (name, confusion) in zip(panels, confusions.items(), strict=True):
        shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(LOOKS[name][0])
        axes.set_xticks(range(len(names)), names)
        if not flat:
            for label in axes.get_xticklabels():
                label.set(rotation=90, rotation_mode="anchor", ha="right", va="center")
        axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(class_names) <= MOST_ANNOTATED:
            _annotate(axes, confusion, shares)
    panels[0].set_ylabel("actual")
    _below(figure, "predicted")
    return figure


def reliability_figure(curves: dict[str, Reliability], errors: dict[str, float]) -> Figure:
    """Accuracy against confidence of each model; the larger a point, the more rows it stands for."""
    figure, panels = _panels(len(curves), 2.2, 2.2, left=0.6, bottom=0.55, gap=0.3)
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        title, colour, _ = LOOKS[name]
        filled = curve.rows > 0
        axes.plot([0, 1], [0, 1], color="#AAAAAA", linestyle=(0, (4, 3)), linewidth=1)
        axes.plot(curve.confidence[filled], curve.accuracy[filled], color=colour, linewidth=1.2)
        sizes = 12 + 160 * curve.rows[filled] / curve.rows.sum()
        axes.scatter(curve.confidence[filled], curve.accuracy[filled], s=sizes, color=colour, alpha=0.8, linewidth=0)
        axes.set_title(title)
        axes.text(0.95, 0.05, f"ECE {errors[name]:.3f}", transform=axes.transAxes, ha="right", color="#333333")
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.tick_params(labelleft=axes is panels[0])
        axes.grid(True)
    panels[0].set_ylabel("accuracy")
    _below(figure, "confidence (dashed: perfectly calibrated; size: share of the rows)")
    return figure


def groups_figure(models: dict[str, Any], headline: Metric) -> Figure:
    """The headline with its interval, over all rows and in the largest groups, a point for each model."""
    places = _places(models)
    labels = [f"{shorten(name)} ({rows})" for name, rows, _ in places]
    lines = 1 if len(models) <= LEGEND_WIDTH else 2
    size = (6.2, 0.35 + 0.155 * max(len(models), 4) * len(places))
    figure, (axes,) = _panels(1, *size, left=_inches(labels) + 0.3, bottom=0.55, top=0.2 + 0.2 * lines)
    for shift, name in enumerate(models):
        title, colour, marker = LOOKS[name]
        values = np.array([scores[name][headline.key] for _, _, scores in places])
        bounds = np.array([scores[name][f"{headline.key}_ci"] for _, _, scores in places])
        heights = np.arange(len(places)) + (shift - (len(models) - 1) / 2) * 0.76 / max(len(models), 4)
        # A percentile interval can leave its value out in a very small sample; bars can't have negative lengths.
        bars = np.maximum(np.abs([values - bounds[:, 0], bounds[:, 1] - values]), 0)
        axes.errorbar(values, heights, xerr=bars, fmt=marker, color=colour, markersize=5, elinewidth=1.6, label=title)
    for line in np.arange(len(places) - 1) + 0.5:
        axes.axhline(line, color="#E4E4E4", linewidth=0.8)
    axes.set_yticks(range(len(places)), labels)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(ticks(headline))
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{headline.name} on the test rows, with its bootstrap interval over documents")
    columns = -(-len(models) // lines)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.2, handletextpad=0.3)
    return figure


def training_figure(histories: dict[str, list[dict[str, Any]]], measured: Metric) -> Figure:
    """Training loss of each model by step, and what was measured on the validation rows, where it was."""
    key = f"eval_{measured.key}"
    figure, panels = _panels(len(histories), 2.3, 1.9, left=0.6, bottom=0.55, gap=0.75)
    for axes, (name, history) in zip(panels, histories.items(), strict=True):
        title, colour, _ = LOOKS[name]
        losses = [(line["step"], line["loss"]) for line in history if "loss" in line]
        marks = [(line["step"], line[key]) for line in history if key in line]
        axes.set_title(title)
        if not losses:
            axes.text(0.5, 0.5, "not trained here", transform=axes.transAxes, ha="center", color="#777777")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            continue
        axes.plot(*zip(*losses, strict=True), color=colour, linewidth=1.4)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(True)
        if marks:
            _validation_marks(axes, marks, measured)
    panels[0].set_ylabel("training loss")
    _below(figure, f"step (line: training loss; points: {measured.name} on the validation rows, right-hand scale)")
    return figure


def shorten(text: str, width: int = LABEL_WIDTH) -> str:
    """The text within ``width`` columns, where a Chinese character takes two."""
    if _columns(text) <= width:
        return text
    while _columns(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _inches(labels: Sequence[str]) -> float:
    """The room that the longest label takes at 9 points."""
    return 0.078 * max((_columns(label) for label in labels), default=0) + 0.1


def _panels(
    count: int, width: float, height: float, *, left: float, bottom: float, gap: float = 0.0, top: float = 0.35
) -> tuple[Figure, list[Axes]]:
    """A row of axes of the given size, with margins in inches."""
    right = max(gap, 0.2)
    total = (left + count * width + (count - 1) * gap + right, bottom + height + top)
    figure = Figure(figsize=total)
    starts = [left + index * (width + gap) for index in range(count)]
    boxes = [(x / total[0], bottom / total[1], width / total[0], height / total[1]) for x in starts]
    return figure, [figure.add_axes(box) for box in boxes]


def _below(figure: Figure, text: str) -> None:
    """A label under all panels, a tenth of an inch above the lower edge."""
    figure.text(0.5, 0.1 / figure.get_figheight(), text, ha="center", va="bottom")


def ticks(metric: Metric) -> Callable[[float, float], str]:
    """How a scale of the metric is written."""
    return lambda value, _: f"{100 * value:.4g}%" if metric.percent else f"{value:.4g}"


def _places(models: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """All rows, then the largest groups: (name, rows, each model's scores there)."""
    groups = {name: scores["rows"] for name, scores in next(iter(models.values()))["groups"].items()}
    largest = sorted(groups, key=lambda name: (-groups[name], name))[:MOST_GROUPS]
    named = [(name, groups[name], {model: models[model]["groups"][name] for model in models}) for name in groups]
    whole = ("all rows", sum(groups.values()), models)
    return [whole, *(place for place in named if place[0] in largest and len(groups) > 1)]


def _annotate(axes: Axes, confusion: np.ndarray, shares: np.ndarray) -> None:
    small = len(confusion) > 4
    for line in np.arange(len(confusion) - 1) + 0.5:
        axes.axhline(line, color="white", linewidth=1.5)
        axes.axvline(line, color="white", linewidth=1.5)
    for (actual, predicted), rows in np.ndenumerate(confusion):
        share = shares[actual, predicted]
        text = f"{share:.0%}" if small else f"{rows}\n{share:.1%}"
        colour = "white" if share > 0.55 else "#222222"
        axes.text(predicted, actual, text, ha="center", va="center", color=colour, fontsize=7 if small else 9)


def _validation_marks(axes: Axes, marks: list[tuple[float, float]], measured: Metric) -> None:
    twin = axes.twinx()
    twin.plot(*zip(*marks, strict=True), color="#CC79A7", marker="o", markersize=4, linewidth=0.8, linestyle=":")
    if measured.percent:
        low = min(value for _, value in marks)
        twin.set_ylim(low - 0.1 if low < 0 else max(0.0, low - 0.1), 1.0)
    twin.yaxis.set_major_formatter(ticks(measured))
    twin.yaxis.set_major_locator(MaxNLocator(4))
    twin.tick_params(colors="#A0527D", labelsize=8)
    twin.spines["right"].set(visible=True, color="#CC79A7")
