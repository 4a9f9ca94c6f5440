"""What a DVC remote's own library raises, as one message for people: which remote, why, what to do, and no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import UserError, disk_full

_SECRET_KEYS = ("key", "secret", "token", "password", "credential", "connection_string", "sas")
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"\?[^\s'\"]*=[^\s'\"]*")
_LONGEST = 400


@contextmanager
def readable(repo: Any, name: str) -> Iterator[None]:
    """Turn what the remote ``name`` raises into a UserError of kind ``remote``; a full disk is told as such."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError

    try:
        yield
    except (UserError, LockError):  # DVC being busy is told by whoever has opened the Repo
        raise
    # Each kind of remote raises its own library's errors.
    except Exception as error:
        if full := disk_full(error):
            raise full from error
        cause = error.__cause__ if isinstance(error, DvcException) and error.__cause__ else error
        raise failed(repo, name, str(cause) or type(cause).__name__) from error


def failed(repo: Any, name: str, reason: str) -> UserError:
    """The remote could not be used; ``reason`` may hold secrets, the message won't."""
    reason = " ".join(without_secrets(repo, name, reason).split())
    address = without_secrets(repo, name, str(_settings(repo, name).get("url", "")))
    return UserError(
        f"The DVC remote '{name}' ({address}) could not be used: {reason[:_LONGEST]}",
        "Check the network, its settings and your credentials (`dvc remote list`, `dvc config --list`), then run "
        "again: what is finished is kept.",
        kind="remote",
    )


def without_secrets(repo: Any, name: str, text: str) -> str:
    """``text`` without the credentials that DVC's configuration and the environment hold, nor those in addresses."""
    found = [value for key, value in _settings(repo, name).items() if _is_secret(key)]
    found += [value for key, value in os.environ.items() if _is_secret(key.lower())]
    for secret in sorted({str(value) for value in found}, key=len, reverse=True):
        if len(secret) >= 4:  # shorter ones would tear words apart
            text = text.replace(secret, "***")
    return _QUERY.sub("?***", _IN_ADDRESS.sub("***@", text))


def _settings(repo: Any, name: str) -> dict[str, Any]:
    return dict(repo.config["remote"].get(name) or {})


def _is_secret(key: str) -> bool:
    return any(word in key for word in _SECRET_KEYS) and not key.endswith(("_path", "keyfile"))
