"""Tells people of failures, promotions and drift through Prefect's notification blocks; never disturbs a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from components.errors import UserError
from components.loader import load_yaml

SETTINGS = "prefect.yaml"
Event = Literal["failure", "promotion", "drift"]
EVENTS = ("failure", "promotion", "drift")
# These log addresses, which may hold secrets.
_TALKATIVE = ("httpx", "httpcore", "apprise", "prefect.block_standards")


def notify(root: Path, event: Event, subject: str, body: str) -> list[str]:
    """Send a message to every notification block that prefect.yaml names for ``event``.

    The blocks hold the addresses and secrets; prefect.yaml names them as TYPE/NAME. A Prefect API must be
    reachable, as it is in a flow. Nothing is raised, and no message says more of an error than its kind.

    Returns:
        A warning for each block that could not be told.
    """
    try:
        names = blocks(root, event)
    except UserError as error:
        return [_warn(f"Nobody was notified: {error.message}")]
    return [warning for name in names if (warning := _send(name, subject, body))]


def promotion(root: Path, name: str, old: str | None, decision: Mapping[str, Any], url: str) -> list[str]:
    """Tell that the alias ``champion`` has moved, and why.

    Args:
        root: the workspace.
        name: the registered model.
        old: the version that was champion before.
        decision: what moved it.
        url: the page of the run that it came from.
    """
    version = decision["challenger"]["version"]
    text = f"`{name}`: the alias `champion` moved from version {old or 'none'} to {version}: {url}"
    body = "\n".join([text, *(f"- {reason}" for reason in decision["reasons"])])
    return notify(root, "promotion", f"Stillhouse: {name} version {version}", body)


def blocks(root: Path, event: Event) -> list[str]:
    """The blocks that are told of ``event``, as ``notify:`` in prefect.yaml names them; none without that file.

    Raises:
        UserError: `notify:` isn't a mapping of events to lists of TYPE/NAME.
    """
    path = root / SETTINGS
    found = (load_yaml(path) or {}) if path.exists() else {}
    told = (found.get("notify") if isinstance(found, dict) else None) or {}
    if not isinstance(told, dict) or set(told) - set(EVENTS):
        raise _misread(f"a mapping of {' and '.join(EVENTS)}", told)
    names = told.get(event) or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name.count("/") == 1 for name in names):
        raise _misread(f"a list such as [custom-webhook/team] for {event}", names)
    return names


def _misread(expected: str, found: Any) -> UserError:
    return UserError(f"Expected under `notify:` in prefect.yaml {expected}, got {found!r}.", "", "parameters")


def _send(name: str, subject: str, body: str) -> str | None:
    """None, or the warning that says why the block could not be told."""
    with _quiet():
        try:
            import prefect.blocks.notifications  # noqa: F401  # registers Prefect's own types of blocks
            from prefect.blocks.abstract import NotificationBlock
            from prefect.blocks.core import Block

            block: Any = Block.load(name)
            if not isinstance(block, NotificationBlock):
                return _warn(f"{name} was not notified: it is no notification block")
            with block.raise_on_failure():
                block.notify(body, subject=subject)  # type: ignore[unused-coroutine]  # it is called outside of loops
        except Exception as error:
            return _warn(f"{name} was not notified: {_kind(error)}")
    return None


def _kind(error: Exception) -> str:
    """What went wrong without the error's own words, which may hold an address with its secret."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    unknown = isinstance(error, ValueError) and "Unable to find block document" in str(error)
    if unknown:
        return "Prefect knows no such block"
    return f"it answered {status}" if status else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _warn(message: str) -> str:
    from prefect.logging import get_logger, get_run_logger

    with contextlib.suppress(Exception):
        try:
            get_run_logger().warning(message)
        except Exception:  # not in a run
            get_logger("notifications").warning(message)
    return message
