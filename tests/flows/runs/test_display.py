"""What a run prints: lines on a plain console, bars on a terminal, markup in names never interpreted."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.runs.display import Display, duration


def show(terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Display(console) as display:
        display.start("teacher")
        display.note("teacher", "step [1] of 3")
        display.progress("teacher", 1, 3, "general, loss 0.5")
        display.finish("teacher", "ran")
        display.finish("label", "unchanged")
        display.start("distill")
        display.finish("distill", "failed")
        display.start("control")
        display.finish("control", "stopped")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_every_stage_ends_with_a_line_that_says_how(terminal: bool) -> None:
    text = show(terminal)
    for words in ("done in", "unchanged", "failed in", "stopped after"):
        assert words in text


def test_a_plain_console_gets_no_control_characters() -> None:
    assert "\x1b" not in show(terminal=False)


def test_a_plain_console_shows_progress_sparingly() -> None:
    console = Console(file=io.StringIO(), width=100)
    with Display(console) as display:
        display.start("teacher")
        for step in range(100):
            display.progress("teacher", step, 100, "loss 0.5")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("step") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stages_own_words_are_shown_as_they_stand(terminal: bool) -> None:
    for words in ("[bold]phase[/bold]", "reading [/tmp/x]", "data.csv:100: odd"):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with Display(console) as display:
            display.start("teacher")
            display.progress("teacher", 1, 3, words)
        with Display(console) as display:
            display.start("label")
            display.note("label", words)
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue().count(words) >= (2 if terminal else 1)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_that_comes_after_the_stages_end_is_harmless(terminal: bool) -> None:
    with Display(Console(file=io.StringIO(), force_terminal=terminal)) as display:
        display.start("teacher")
        display.finish("teacher", "failed")
        display.progress("teacher", 1, 3, "loss 0.5")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (89, "1 min"), (200, "3 min"), (5300, "88 min"), (5400, "1.5 h")],
)
def test_durations_are_told_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.4, "59.4 s"), (185.7, "3 min 5 s"), (5399, "89 min 59 s"), (7200, "2 h")]
)
def test_what_was_measured_is_told_more_exactly(seconds: float, text: str) -> None:
    assert duration(seconds, exact=True) == text
