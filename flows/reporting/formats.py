"""Numbers and names as the report and the card write them; both templates use these as filters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.ml.tasks.task import Metric
from flows.markup import markdown, one_line
from flows.tracking import headline

NONE = "–"
LONGEST_NAME = 28


def percent(share: float) -> str:
    """A share in per cent, without the sign."""
    return f"{100 * share:.1f}"


def score(scores: Mapping[str, Any], metric: Metric) -> str:
    """The value of a metric, without the sign for per cent."""
    value = scores.get(metric.key)
    return NONE if value is None else headline.number(metric, value)


def figure_of(value: float, metric: Metric) -> str:
    """A value of a metric, likewise."""
    return headline.number(metric, value)


def interval(scores: Mapping[str, Any], metric: Metric) -> str:
    """The interval of a metric; empty where it has none."""
    return headline.span(metric, scores.get(f"{metric.key}_ci"))


def with_interval(scores: Mapping[str, Any], metric: Metric) -> str:
    """The value of a metric and, in brackets, its interval if it has one."""
    bounds = interval(scores, metric)
    return f"{score(scores, metric)} ({bounds})" if bounds else score(scores, metric)


def change(value: float, metric: Metric) -> str:
    """A difference of a metric."""
    return headline.change(metric, value)


def whole(share: float | None) -> str:
    """A share in whole per cent; what isn't certain never reads as 100 %, what isn't known is empty."""
    return "" if share is None else f"{min(share, 0.99 if share < 1 else 1.0):.0%}"


def count(number: float | None) -> str:
    """A whole number."""
    return NONE if number is None else f"{number:,.0f}"


def millions(number: float) -> str:
    """How many parameters."""
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"


def figure(number: float | None) -> str:
    """A number of any size, to three digits."""
    return NONE if number is None else f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def megabytes(number: float) -> str:
    """A size in MB, without the unit; a tiny one isn't 0.0."""
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def times(ratio: float | None) -> str:
    """How many times smaller or faster."""
    return "" if ratio is None else f"({ratio:.1f}×)"


def size(number: float | None) -> str:
    """A number of bytes."""
    if number is None:
        return NONE
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def duration(seconds: float | None) -> str:
    """A time."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def short(text: str) -> str:
    """A name that fits above a column."""
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


@cache
def environment() -> Environment:
    """The templates beside this file; HTML escapes all that it isn't told to trust, a missing value is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        **{"pct": percent, "score": score, "figure_of": figure_of, "interval": interval, "change": change},
        **{"with_interval": with_interval, "whole": whole, "count": count},
        **{
            "millions": millions,
            "figure": figure,
            "times": times,
            "bytes": size,
            "duration": duration,
            "mb": megabytes,
            "line": one_line,
            "short": short,
        },
        "md": markdown,
        "capital": headline.capital,
    }
    return made
