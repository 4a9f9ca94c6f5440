"""What a run looks like in the terminal: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

MARKS = {
    "ran": "[green]✓[/]",
    "restored": "[green]✓[/]",
    "unchanged": "[dim]=[/]",
    "stopped": "[yellow]■[/]",
    "failed": "[red]✗[/]",
}
WORDS = {
    "ran": "done in",
    "restored": "restored from the cache in",
    "unchanged": "unchanged",
    "stopped": "stopped after",
    "failed": "failed in",
}


class Display:
    """Shows the stages of a run. Thread-safe: stages may run in parallel.

    On a terminal each running stage has a bar; otherwise each event is a line.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("  [cyan]▸[/] {task.description:<12}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),  # a stage's own words
            console=console,
            transient=True,
        )

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """One line of markup."""
        self.console.print(text, highlight=False)

    def start(self, name: str) -> None:
        """A stage or side effect begins."""
        with self._lock:
            self._started[name] = time.monotonic()
            if self.console.is_terminal:
                self._bars[name] = self._progress.add_task(name, total=None, note="")
            else:
                self.console.print(f"  ▸ {name}", highlight=False)

    def progress(self, name: str, step: int, total: int, note: str) -> None:
        """How far a stage is; on a plain console a line every ten seconds at most."""
        with self._lock:
            if self.console.is_terminal:
                if name in self._bars:  # else it has ended since
                    self._progress.update(self._bars[name], completed=step, total=total, note=note)
            elif time.monotonic() - self._shown.get(name, 0.0) >= 10:
                self._shown[name] = time.monotonic()
                self.console.print(Text(f"    {name}: step {step} of {total}, {note}"))

    def note(self, name: str, text: str) -> None:
        """The newest line of a stage's output, shown beside its bar."""
        with self._lock:
            if name in self._bars:
                self._progress.update(self._bars[name], note=text[: max(self.console.width - 60, 10)])

    def finish(self, name: str, outcome: str, detail: str = "") -> None:
        """A stage or side effect has ended: ran, restored, unchanged, stopped (from without) or failed."""
        with self._lock:
            seconds = time.monotonic() - self._started.get(name, time.monotonic())
            if name in self._bars:
                self._progress.remove_task(self._bars.pop(name))
            took = f" {duration(seconds, exact=True)}" if outcome != "unchanged" else ""
            line = Text.from_markup(f"  {MARKS[outcome]} {name:<12} {WORDS[outcome]}{took}")
            if detail:
                line.append(f" · {detail}", style="dim")
            self.console.print(line, highlight=False)


def duration(seconds: float, *, exact: bool = False) -> str:
    """For people: ``5 s``, ``3 min``, ``1.5 h``, never less than a second; ``exact``: ``5.2 s``, ``3 min 5 s``."""
    if exact and seconds < 60:
        return f"{seconds:.1f} s"
    if exact and seconds < 90 * 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if round(seconds) < 60:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f}".removesuffix(".0") + " h"
