"""The figure of quality against cost: which models are worth having, with their names beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from components.plots import LOOKS, ticks
from flows.reporting.evidence import Evidence
from flows.reporting.plates import INK, LABEL, SOFT, Plate, axes_in, bars, plate, title_of
from flows.tracking.headline import ACCURACY, capital, share

COSTS = {"megabytes": ("size in MB", "MB"), "latency_p50_ms": ("median latency of one text in ms", "ms")}
PARETO = 2.75  # inches of height
TICKS = 7  # as many numbers have room below an axis
LINE = 0.13  # inches from one line of a label to the next


def front(models: Mapping[str, Any], cost: str, key: str = ACCURACY.key) -> list[str]:
    """The models than which no other is both as good and as cheap, and better in one of the two; cheapest first."""
    costs = {name: float(model[cost]) for name, model in models.items() if model.get(cost) is not None}
    best, found = -np.inf, []
    for name in sorted(costs, key=lambda name: (costs[name], -models[name][key])):
        if models[name][key] > best:
            best = models[name][key]
            found.append(name)
    return found


def pareto(evidence: Evidence, cost: str) -> Plate | None:
    """The headline with its interval against a cost, the front as a line; None where fewer than two have that cost."""
    models = {name: model for name, model in evidence.models.items() if model.get(cost) is not None}
    if len(models) < 2:
        return None
    (label, unit), headline = COSTS[cost], evidence.headline
    key = headline.key
    figure, axes = axes_in(PARETO, left=0.5, right=1.2, bottom=0.5)
    best = front(models, cost, key)
    line = [(models[name][cost], models[name][key]) for name in best]
    axes.plot(*zip(*line, strict=True), color=SOFT, linewidth=1.2, drawstyle="steps-post", zorder=1)
    for name, model in models.items():
        _, colour, marker = LOOKS[name]
        lengths = bars([model[key]], [model[f"{key}_ci"]])
        axes.errorbar(
            model[cost],
            model[key],
            yerr=lengths,
            fmt=marker,
            color=colour,
            markersize=6,
            elinewidth=0.9,
            alpha=0.9,
        )
    _log_scale(axes, [model[cost] for model in models.values()])
    axes.yaxis.set_major_formatter(ticks(headline))
    axes.grid(True, axis="y")
    axes.set_xlabel(label)
    axes.set_title(headline.name)
    figure.canvas.draw()  # gives the axes their limits, for the labels
    points = {name: (model[cost], model[key]) for name, model in models.items()}
    _name_beside(axes, points, evidence.titles, PARETO)
    return plate(figure, _pareto_words(evidence, models, best, cost, unit))


def _pareto_words(evidence: Evidence, models: Mapping[str, Any], best: Sequence[str], cost: str, unit: str) -> str:
    headline = evidence.headline

    def told(name: str) -> str:
        score = share(headline, models[name][headline.key])
        return f"{title_of(evidence, name)} ({score} at {models[name][cost]:.3g} {unit})"

    others = [told(name) for name in models if name not in best]
    rest = f" Not on it: {', '.join(others)}." if others else ""
    return f"{capital(headline.name)} against {COSTS[cost][0]}. On the front: {', '.join(map(told, best))}.{rest}"


def _name_beside(
    axes: Axes, points: Mapping[str, tuple[float, float]], titles: Mapping[str, str], inches: float
) -> None:
    """The names in a column at the right, each with a thin line to its point, and none over another."""
    low, high = axes.get_ylim()
    wanted = {name: (y - low) / (high - low) * inches for name, (_, y) in points.items()}
    rooms = {name: LINE * (1 + titles[name].count("\n")) + 0.03 for name in points}
    for name, height in _apart(wanted, rooms, inches).items():
        colour = LOOKS[name][1]
        axes.annotate(
            titles[name],
            xy=points[name],
            xytext=(1.08, height / inches),
            textcoords="axes fraction",
            va="center",
            fontsize=LABEL,
            linespacing=1.0,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.75, "shrinkB": 3},
        )


def _apart(wanted: Mapping[str, float], rooms: Mapping[str, float], height: float) -> dict[str, float]:
    """The heights nearest to those wanted at which each name has its room; from the bottom up, then back down."""
    names = sorted(wanted, key=lambda name: wanted[name])
    found: dict[str, float] = {}
    edge = 0.0
    for name in names:
        found[name] = max(wanted[name], edge + rooms[name] / 2)
        edge = found[name] + rooms[name] / 2
    edge = max(height, sum(rooms.values()))
    for name in reversed(names):
        found[name] = min(found[name], edge - rooms[name] / 2)
        edge = found[name] - rooms[name] / 2
    return found


def _log_scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic scale with some numbers on it, however narrow or wide the range."""
    axes.set_xscale("log")
    low, high = min(values) / 1.35, max(values) * 1.35
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(_round_numbers(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")


def _round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between the two, no closer on a logarithmic scale than their names have room."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    multiples = (1, 2, 5) if high / low > 5 else range(1, 10)
    apart = (high / low) ** (1 / TICKS)
    found: list[float] = []
    for number in (multiple * 10.0**decade for decade in decades for multiple in multiples):
        if low <= number <= high and (not found or number >= found[-1] * apart):
            found.append(number)
    return found
