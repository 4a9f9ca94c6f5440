"""The section ``gate`` of params.yaml: what a new model has to show before it becomes the champion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.params.section import Positive, Section, Share
from components.params.stages import Bootstrap


class Floors(Section):
    """What no model may fall short of, whatever it gains; null: no such floor.

    Args:
        other_groups: the accuracy, or what else is the task's headline, that another group may lose against the
            champion, as a share.
        retention: the share of the teacher's accuracy or other headline, on all test rows, that the model keeps at
            least.
        latency_p50_ms: the median latency of one text that the model may have at most.
        megabytes: the size that the model may have at most.
    """

    other_groups: Share | None = 0.02
    retention: Positive | None = 0.95
    latency_p50_ms: Positive | None = None
    megabytes: Positive | None = None


class Gate(Section):
    """The rules by which a challenger is promoted; no stage depends on them.

    Args:
        group: where the two are compared: a group, ``all``, or null for the group of the fine-tune.
        margin: by how much accuracy or other headline, as a share, the challenger may fall short of the champion and
            still be promoted, if it is shown to fall short by no more; 0.0: it must be shown to be better.
        tie: what becomes of a challenger that is shown neither to be good enough nor to be worse: the champion stays
            (``keep``), or the newer model takes its place (``promote``).
        bootstrap: how the interval of the difference is drawn.
        floors: what is asked besides.
    """

    group: Annotated[str, Field(min_length=1)] | None = None
    margin: Share = 0.0
    tie: Literal["keep", "promote"] = "keep"
    bootstrap: Bootstrap = Bootstrap()
    floors: Floors = Floors()
