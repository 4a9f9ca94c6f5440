"""The plan as the terminal shows it: a line for each stage, what follows, and how long it will take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flows.runs.display import duration

if TYPE_CHECKING:
    from flows.repo.workspace import PlannedStage

COLOURS = {"run": "green", "resume": "green", "restore": "cyan", "skip": "dim", "depends": "yellow"}
REASONS, LINES = 3, 2
SPARE = 12
"""Cells of two lines that stay empty where words are broken, or hold `and 9 more`."""
NARROWEST = 24
_DEPENDS = "depends on "
_LEFT = " is left as it is, though "


@dataclass(frozen=True)
class Foresight:
    """What a run would do: to the chosen stages, and then. ``left`` are the others that are out of date after it."""

    stages: Sequence[PlannedStage]
    then: Sequence[str] = ()
    left: Sequence[str] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.then and all(stage.action == "skip" for stage in self.stages)


def print_plan(console: Console, plan: Foresight, title: str = "Plan") -> None:
    """Print it; a plan that does nothing is one sentence, and what there is to say of the results."""
    if not plan.idle:
        console.print(f"[bold]{escape(title)}[/]", highlight=False)
        console.print(_table(plan.stages, console.width))
        _print_lines(console, [*_left(plan), *_ends(plan)])
        return
    if plan.left:
        console.print("[green]Nothing to do[/]: the chosen stages are up to date.")
    else:
        console.print("[green]Nothing changed[/]: every stage is up to date and published.")
    said = [f"{stage.name}: {reason}" for stage in plan.stages for reason in stage.because if _LEFT not in reason]
    ends = [f"out of date, but not chosen: {_few(plan.left)}"] if plan.left else []
    _print_lines(console, [*said, *_left(plan), *ends])


def _left(plan: Foresight) -> list[str]:
    """What the chosen stages build on though it is out of date; once, however many they are."""
    return list(dict.fromkeys(reason for stage in plan.stages for reason in stage.because if _LEFT in reason))


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)))
    console.print()


def _table(stages: Sequence[PlannedStage], width: int) -> Table:
    times = {stage.name: _time(stage) for stage in stages}
    taken = 2 + sum(max(map(cell_len, column)) + 2 for column in (times, [stage.action for stage in stages]))
    taken += max(map(cell_len, times.values()))
    lines = Table.grid(padding=(0, 2, 0, 0))
    for long in (False, False, True, False):
        lines.add_column(no_wrap=not long, overflow="fold")
    for stage in stages:
        because = _because(stage, max(width - taken - 2, NARROWEST))
        action = Text(stage.action, style=COLOURS[stage.action])
        lines.add_row(Text(f"  {stage.name}"), action, Text(because, style="dim"), Text(times[stage.name]))
    return lines


def _because(stage: PlannedStage, width: int) -> str:
    """As many reasons as two lines hold, at least one; the rest is counted.

    What else a stage depends on that runs anyway is left out where it would take a line of its own.
    """
    own = [reason for reason in stage.because if not reason.startswith(_DEPENDS) and _LEFT not in reason]
    waits = ", ".join(reason.removeprefix(_DEPENDS) for reason in stage.because if reason.startswith(_DEPENDS))
    if stage.action == "depends":
        return "; ".join([f"on {waits}", *own])
    shown = min(len(own), 1)
    while shown < min(len(own), REASONS) and cell_len("; ".join(own[: shown + 1])) <= LINES * width - SPARE:
        shown += 1
    more = f" and {len(own) - shown} more" if len(own) > shown else ""
    told = "; ".join(own[:shown]) + more
    whole = f"{told}; {_DEPENDS}{waits}"
    return whole if waits and cell_len(whole) <= width else told


def _time(stage: PlannedStage) -> str:
    if stage.seconds is None:
        return ""
    return f"{'up to' if stage.action == 'depends' else 'about'} {duration(stage.seconds)}"


def _ends(plan: Foresight) -> Iterator[str]:
    """How long all of it takes, and what follows."""
    sure = [stage.seconds for stage in plan.stages if stage.seconds is not None and stage.action != "depends"]
    perhaps = [stage.seconds for stage in plan.stages if stage.seconds is not None and stage.action == "depends"]
    unknown = [stage.name for stage in plan.stages if stage.seconds is None and stage.action != "skip"]
    if sure or perhaps:
        least = f"about {duration(sum(sure))}" if sure else ""
        most = f"up to {duration(sum([*sure, *perhaps]))}" if perhaps else ""
        rest = f", and what {_few(unknown)} take{'s' if len(unknown) == 1 else ''}" if unknown else ""
        yield f"time: {', '.join(filter(None, (least, most)))}{rest}"
    if plan.left:
        yield f"not published: {_few(plan.left)} may stay out of date"
    elif plan.then:
        yield f"then: {', '.join(plan.then)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - REASONS} more" if len(names) > REASONS else ""
    return ", ".join(names[:REASONS]) + more
