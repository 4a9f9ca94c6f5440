"""The report's figures, each with a sentence that tells what it shows in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from components import plots
from components.ml.statistics.metrics import Reliability
from components.ml.tasks.task import Metric
from components.plots import LOOKS, shorten, ticks, validated
from flows.reporting.evidence import Evidence
from flows.reporting.plates import (
    INK,
    LABEL,
    Plate,
    axes_in,
    bars,
    plate,
    share_of,
    title_of,
)
from flows.tracking.headline import capital, change, number, share, span, unit

MOST_GROUPS = 11


def groups(evidence: Evidence) -> list[Plate]:
    """A figure for all rows, and one for each of the largest groups: every model's headline with its interval."""
    models, key = evidence.models, f"{evidence.headline.key}_ci"
    sizes = {name: scores["rows"] for name, scores in models["teacher"]["groups"].items()}
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:MOST_GROUPS]
    target = evidence.comparison["target_group"]
    places = [("all rows", evidence.comparison["rows"], dict(models))]
    for name in sorted(largest, key=lambda name: (name != target, name)) if len(sizes) > 1 else []:
        scores = {model: found["groups"][name] for model, found in models.items() if name in found["groups"]}
        places.append((name, sizes[name], scores))
    bounds = [end for _, _, scores in places for model in scores.values() for end in model[key]]
    low, high = min(bounds), max(bounds)
    room = 0.01 if evidence.headline.percent else 0.02 * (high - low)
    ends = max(0.0, low - room) if low >= 0 else low - room, min(1.0, high + room) if high <= 1 else high + room
    return [_group(evidence, *place, ends) for place in places]


def _group(evidence: Evidence, name: str, rows: int, scores: Mapping[str, Any], ends: tuple[float, float]) -> Plate:
    headline, key = evidence.headline, evidence.headline.key
    figure, axes = axes_in(0.29 * len(scores) + 0.2, left=1.2, right=0.45, bottom=0.3)
    for place, (model, found) in enumerate(scores.items()):
        _, colour, marker = LOOKS[model]
        lengths = bars([found[key]], [found[f"{key}_ci"]])
        axes.errorbar(found[key], place, xerr=lengths, fmt=marker, color=colour, markersize=5.5, elinewidth=2.2)
        axes.text(
            1.03, place, number(headline, found[key]), transform=axes.get_yaxis_transform(), va="center", color=INK
        )
    axes.set_yticks(range(len(scores)), [evidence.titles[model] for model in scores], fontsize=LABEL, linespacing=1.0)
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.set_xlim(*ends)
    axes.xaxis.set_major_formatter(ticks(headline))
    axes.locator_params(axis="x", nbins=4)
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{shorten(name)} ({rows:,})", x=0.0)
    told = ", ".join(
        f"{title_of(evidence, model)} {share(headline, found[key])} ({span(headline, found[f'{key}_ci'])})"
        for model, found in scores.items()
    )
    return plate(figure, f"{capital(headline.name)} on {name}, {rows:,} rows, with intervals: {told}.")


def gains(lines: Sequence[tuple[str, Mapping[str, Any]]], headline: Metric) -> Plate | None:
    """What each step gained, with its interval; the line at 0 is no gain."""
    if not lines:
        return None
    figure, axes = axes_in(0.32 * len(lines) + 0.2, left=1.35, right=0.5, bottom=0.5)
    for place, (_, gain) in enumerate(lines):
        low, high = gain["ci"]
        colour = "#00725A" if low > 0 else "#B33A00" if high < 0 else "#555555"
        value = gain[headline.key]
        lengths = bars([value], [gain["ci"]])
        axes.errorbar(value, place, xerr=lengths, fmt="o", color=colour, markersize=5.5, elinewidth=2.2)
        axes.text(1.03, place, change(headline, value), transform=axes.get_yaxis_transform(), va="center", color=INK)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(lines)), [_two_lines(name) for name, _ in lines], fontsize=LABEL, linespacing=1.0)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{(100 if headline.percent else 1) * value:+.3g}")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(unit(headline) if headline.percent else headline.name)
    told = "; ".join(
        f"{name} {change(headline, gain[headline.key])}{' points' if headline.percent else ''} "
        f"({change(headline, gain['ci'][0])} to {change(headline, gain['ci'][1])})"
        for name, gain in lines
    )
    return plate(figure, f"Gains in {headline.name} with intervals: {told}.")


def confusions(evidence: Evidence) -> Iterator[Plate]:
    """The confusion matrix of each model."""
    for name, matrix in evidence.confusions.items():
        rows = np.array(matrix)
        figure = plots.confusion_figure({name: rows}, evidence.labels)
        _retitle(figure, evidence, name)
        wrong = rows.copy()
        np.fill_diagonal(wrong, 0)
        actual, taken = np.unravel_index(int(wrong.argmax()), wrong.shape)
        mistake = (
            f"the most frequent mistake takes {evidence.labels[int(actual)]} for {evidence.labels[int(taken)]} "
            f"({wrong.max():,} of {rows[actual].sum():,} rows)"
            if wrong.max()
            else "no mistakes"
        )
        right = int(np.trace(rows))
        yield plate(
            figure,
            f"Confusion matrix of {title_of(evidence, name)}: {right:,} of {rows.sum():,} rows right; {mistake}.",
        )


def reliability(evidence: Evidence) -> Iterator[Plate]:
    """The reliability diagram of each model."""
    for name, bins in evidence.reliability.items():
        confidence, accuracy, rows = (np.array(values) for values in zip(*bins, strict=True))
        error = evidence.models[name]["ece"]
        figure = plots.reliability_figure({name: Reliability(confidence, accuracy, rows)}, {name: error})
        _retitle(figure, evidence, name)
        figure.axes[0].set_xlabel("confidence")
        most = int(rows.argmax())
        yield plate(
            figure,
            f"Reliability of {title_of(evidence, name)}: expected calibration error {error:.3f}; of the {rows[most]:,} "
            f"rows with a confidence around {share_of(confidence[most])}, {share_of(accuracy[most])} are right.",
        )


def training(evidence: Evidence) -> Iterator[Plate]:
    """The training curve of each model that was trained here."""
    measured = validated(evidence.task)
    key = f"eval_{measured.key}"
    for name, history in evidence.histories.items():
        losses = [(line["step"], line["loss"]) for line in history if "loss" in line]
        if not losses:
            continue
        figure = plots.training_figure({name: [dict(line) for line in history]}, measured)
        _retitle(figure, evidence, name)
        figure.axes[0].set_xlabel("step")
        marks = [(line["step"], line[key]) for line in history if key in line]
        (first, begun), (last, ended) = losses[0], losses[-1]
        said = f"from {begun:.3f} at step {first:,} to {ended:.3f} at step {last:,}"
        then = f"; {measured.name} on the validation rows {share(measured, marks[-1][1])}" if marks else ""
        then += f" at step {marks[-1][0]:,}" if marks else ""
        yield plate(figure, f"Training of {title_of(evidence, name)}: loss {said}{then}.")


def _retitle(figure: Figure, evidence: Evidence, name: str) -> None:
    """The page's name for the model, and no caption below: the page has one for all models."""
    figure.axes[0].set_title(title_of(evidence, name))
    for text in list(figure.texts):
        text.remove()


def _two_lines(name: str) -> str:
    head, _, tail = name.partition(", ")
    return f"{head},\n{tail}" if tail else name
