"""Speed and time left are those of the training that runs now, not of what was done before a resume."""

from __future__ import annotations

from typing import Any

from flows.runs.pace import Pace


def line(step: int, epoch: float, phase: str = "distill", **more: Any) -> dict[str, Any]:
    return {"phase": phase, "step": step, "total_steps": 100, "epoch": epoch, "loss": 0.5, **more}


def test_the_first_line_tells_no_speed() -> None:
    assert Pace().note(line(10, 1.0), 5.0) == "distill, loss 0.500"


def test_a_resumed_training_counts_from_its_first_line() -> None:
    pace = Pace()
    pace.note(line(60, 6.0, rows=200), 100.0)
    # 20 steps and 2 epochs of 200 rows in 10 seconds
    assert pace.note(line(80, 8.0, rows=200), 110.0) == "distill, loss 0.500, 40 examples/s, 10 s left"


def test_each_phase_counts_its_own_epochs() -> None:
    pace = Pace()
    pace.note(line(40, 4.0, "general", rows=200), 0.0)
    pace.note(line(50, 1.0, "specific", rows=50), 10.0)
    assert pace.note(line(60, 2.0, "specific", rows=50), 20.0) == "specific, loss 0.500, 5 examples/s, 40 s left"


def test_lines_without_rows_or_a_loss_are_shown_as_they_are() -> None:
    pace = Pace()
    pace.note(line(10, 1.0), 0.0)
    evaluated = {"phase": "distill", "step": 20, "total_steps": 100, "epoch": 2.0, "eval_accuracy": 0.9}
    assert pace.note(evaluated, 1.0) == "distill, 8 s left"
