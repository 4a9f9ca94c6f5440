"""How fast a stage trains and how long it will still take, by the lines of its growing history."""

from __future__ import annotations

from typing import Any


class Pace:
    """Steps and examples for each second, counted from the first line seen: after a resume, that isn't step 0."""

    def __init__(self) -> None:
        self._first: tuple[float, dict[str, Any]] | None = None
        self._phase: tuple[float, dict[str, Any]] | None = None

    def note(self, line: dict[str, Any], now: float) -> str:
        """The newest line in words: phase, loss, examples for each second, time left."""
        self._first = self._first or (now, line)
        if self._phase is None or self._phase[1]["phase"] != line["phase"]:
            self._phase = (now, line)
        loss = line.get("loss", line.get("eval_loss"))
        words = [str(line["phase"])]
        if loss is not None:
            words.append(f"loss {loss:.3f}")
        speed, left = self._examples_a_second(line, now), self._left(line, now)
        if speed is not None:
            words.append(f"{speed:.0f} examples/s")
        if left is not None:
            words.append(f"{left:.0f} s left")
        return ", ".join(words)

    def _left(self, line: dict[str, Any], now: float) -> float | None:
        assert self._first
        since, first = self._first
        steps = line["step"] - first["step"]
        return (now - since) / steps * (line["total_steps"] - line["step"]) if steps > 0 else None

    def _examples_a_second(self, line: dict[str, Any], now: float) -> float | None:
        """None while it isn't known; ``epoch`` counts within the phase, whose number of rows the lines tell."""
        assert self._phase
        since, first = self._phase
        rows, epochs = line.get("rows"), (line.get("epoch") or 0) - (first.get("epoch") or 0)
        return rows * epochs / (now - since) if rows and epochs > 0 and now > since else None
