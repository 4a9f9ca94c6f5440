"""What the Prefect UI shows of a run: the plan, how training gets on, the comparison, links. Never disturbs a run."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_logger, get_run_logger

from flows.repo.workspace import PlannedStage
from flows.runs.display import duration
from flows.runs.pace import Pace

UPDATE_SECONDS = 5.0
Arguments = ParamSpec("Arguments")


def _harmless(show: Callable[Arguments, Any]) -> Callable[Arguments, None]:
    """``show``, but what goes wrong in it is a line of the log."""

    @functools.wraps(show)
    def attempt(*arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        try:
            show(*arguments, **named)
        except Exception as error:
            _log(f"An artifact could not be shown: {error}")

    return attempt


def _log(message: str) -> None:
    with contextlib.suppress(Exception):
        try:
            get_run_logger().warning(message)
        except Exception:  # not in a run
            get_logger("artifacts").warning(message)


@_harmless
def plan(planned: Sequence[PlannedStage]) -> None:
    """A table of what happens to each stage, and why."""
    rows = [
        {
            "stage": stage.name,
            "action": f"resume at step {stage.step}" if stage.action == "resume" else stage.action,
            "because": "; ".join(stage.because),
            "takes about": "" if stage.seconds is None else duration(stage.seconds),
        }
        for stage in planned
    ]
    create_table_artifact(rows, key="plan", description="What this run does to each stage")


@_harmless
def comparison(markdown: str) -> None:
    """The models side by side."""
    create_markdown_artifact(markdown, key="comparison", description="The models side by side")


@_harmless
def decision(markdown: str) -> None:
    """What the promotion gate decided, and why."""
    create_markdown_artifact(markdown, key="decision", description="Whether the new model becomes the champion")


@_harmless
def monitoring(markdown: str) -> None:
    """Whether the rows that a model in use has met look like its training."""
    create_markdown_artifact(markdown, key="monitoring", description="The model in use against its training")


@_harmless
def scored(markdown: str) -> None:
    """What a file was labelled as."""
    create_markdown_artifact(markdown, key="scored", description="The rows that the model in use has labelled")


@_harmless
def mlflow_run(url: str) -> None:
    """A link to the run in MLflow."""
    create_link_artifact(url, link_text="The run in MLflow", key="mlflow")


@_harmless
def run_report(url: str) -> None:
    """A link to the report of the run."""
    create_link_artifact(url, link_text="The report of this run", key="report")


@_harmless
def mlflow_models(table: str, compared: str) -> None:
    """Links to the models side by side in MLflow: the runs table, and the page that compares."""
    create_link_artifact(table, link_text="The models in MLflow's runs table", key="mlflow-models")
    create_link_artifact(compared, link_text="The models on MLflow's compare page", key="mlflow-compared")


@contextlib.contextmanager
def progress(stage: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """How far a stage is; gives what takes the lines of its history.jsonl as they come, from any one thread.

    Enter it in the stage's task run, to which the artifact belongs. A stage that trains nothing has none.
    """
    # Prefect finds the task run in the context of the thread, and the lines come in another one.
    shown = Progress(stage, contextvars.copy_context())
    try:
        yield shown.line
    finally:
        shown.close()


class Progress:
    """The progress artifact of one stage: made with the first line, brought up to date every few seconds."""

    def __init__(self, stage: str, context: contextvars.Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage, self._context, self._clock = stage, context, clock
        self._pace = Pace()
        self._id: Any = None
        self._shown_at = 0.0
        self._unshown: tuple[float, str] | None = None

    def line(self, line: dict[str, Any]) -> None:
        """Take a line of the history."""
        now, step, total = self._clock(), line["step"], line["total_steps"]
        words = f"step {step} of {total}, {self._pace.note(line, now)}"
        self._unshown = (100 * step / max(total, 1), words)
        if self._id is None or now - self._shown_at >= UPDATE_SECONDS:
            self._shown_at = now
            self._context.run(self._show)

    def close(self) -> None:
        """Show the last line."""
        if self._unshown:
            self._show()

    @_harmless
    def _show(self) -> None:
        assert self._unshown
        percent, words = self._unshown
        self._unshown = None
        if self._id is None:
            self._id = create_progress_artifact(percent, key=f"progress-{_key(self._stage)}", description=words)
        else:
            update_progress_artifact(self._id, percent, description=words)


def _key(name: str) -> str:
    """Prefect allows lowercase letters, digits and dashes."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower())
