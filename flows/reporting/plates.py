"""A figure as an image inside the page: an SVG in a data address, with the words that stand for it."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.plots import STYLE
from flows.reporting.evidence import Evidence

WIDTH = 3.6  # inches: at most about a phone's width, so that the text stays readable there
PIXELS = 96  # of an inch
INK, SOFT = "#333333", "#8A8A8A"
LABEL = 7.5  # points


@dataclass(frozen=True)
class Plate:
    """An image: its address, what it shows in words, and its size in pixels."""

    address: str
    alt: str
    width: int
    height: int


@contextmanager
def drawing() -> Iterator[None]:
    """The style of the evaluation's pictures, for figures made and finished inside."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The viewer has the glyphs that the font used for layout lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"axes.titlelocation": "left", "axes.titlesize": 9.5})
        yield


def plate(figure: Figure, alt: str) -> Plate:
    """The figure as an image; nothing in an image can run or reach out, whatever the names in it are.

    Without a background, so that it stands on the page's; the page turns its colours round where it is dark.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    address = f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
    width, height = (round(PIXELS * inches) for inches in figure.get_size_inches())
    return Plate(address, alt, width, height)


def axes_in(height: float, *, left: float, right: float, bottom: float, top: float = 0.32) -> tuple[Figure, Axes]:
    """Axes of the given height in a figure of the usual width, all in inches."""
    total = height + bottom + top
    figure = Figure(figsize=(WIDTH, total))
    return figure, figure.add_axes((left / WIDTH, bottom / total, (WIDTH - left - right) / WIDTH, height / total))


def bars(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> np.ndarray:
    """Lengths below and above; a percentile interval can leave its value out in a very small sample."""
    middle, ends = np.array(values), np.array(intervals)
    return np.array([middle - ends[:, 0], ends[:, 1] - middle]).clip(min=0)


def title_of(evidence: Evidence, name: str) -> str:
    return evidence.titles[name].replace("\n", " ")


def share_of(share: float) -> str:
    return f"{100 * share:.1f}%"
