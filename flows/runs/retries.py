"""What is worth trying again, and when: faults that pass (network, servers, remotes), after growing pauses."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from components.errors import UserError

TRANSIENT = ("busy", "network", "remote", "tracking")
"""Kinds of UserError that may be gone a little later."""
DELAYS = (2.0, 8.0, 30.0)
VARIABLE = "STILLHOUSE_RETRY_DELAYS"
JITTER = 0.25
Result = TypeVar("Result")


def delays() -> list[float]:
    """Seconds to wait before each further attempt; STILLHOUSE_RETRY_DELAYS=1,5 sets others, and empty none.

    Raises:
        UserError: the variable holds something else.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return list(DELAYS)
    try:
        return [max(0.0, float(word)) for word in text.split(",") if word.strip()]
    except ValueError:
        raise UserError(
            f"Expected seconds such as 2,8,30 in {VARIABLE}, got '{text}'.", "Correct it or unset it.", "parameters"
        ) from None


def transient(error: object) -> bool:
    """Whether a later attempt may do better: never with bad data, bad parameters, a failed gate or training."""
    return isinstance(error, UserError) and error.kind in TRANSIENT


def settings() -> dict[str, Any]:
    """Options of a Prefect task that is tried again. The task waits itself (:func:`pause`): Prefect's own pause
    couldn't be interrupted."""
    return {"retries": len(delays()), "retry_delay_seconds": 0, "retry_condition_fn": _worth_it}


def _worth_it(_task: Any, _run: Any, state: Any) -> bool:
    return transient(state.data)


def attempt() -> int:
    """Which attempt of the present task run this is, from 1."""
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    return max(context.task_run.run_count, 1) if context else 1


def will_retry(error: object) -> bool:
    """Whether Prefect will try the present task run again after this error."""
    return transient(error) and attempt() <= len(delays())


def pause(wait: Callable[[float], object] = time.sleep) -> None:
    """In a further attempt of a task run: wait its turn. ``wait`` takes the seconds."""
    number = attempt()
    if number > 1:
        wait(jittered(delays()[number - 2]))


def jittered(seconds: float) -> float:
    """A little more or less, so that those who failed together don't come back together."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)


def again(action: Callable[[], Result], say: Callable[[str], None], at_most: int | None = None) -> Result:
    """Do something outside a task; after a fault that may pass, up to ``at_most`` times again.

    Raises:
        UserError: the last attempt's.
    """
    for seconds in delays()[:at_most]:
        try:
            return action()
        except UserError as error:
            if not transient(error):
                raise
            say(f"{error.message} Trying again in {seconds:.0f} s.")
            time.sleep(jittered(seconds))
    return action()
