"""Where MLflow keeps things: the embedded SQLite store or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from components.errors import UserError, disk_full
from flows.repo.workspace import Workspace
from flows.server import HOST, MLFLOW_PORT, mlflow_ui

_SQLITE = "sqlite:///"
_DATABASE = Path(".stillhouse/mlflow/mlflow.db")
# Values that the user set win. Long uploads need a long timeout; a dead server is noticed before, by _greet.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
_GREETING_SECONDS = 4


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI if it is set, else SQLite under ``.stillhouse/mlflow`` of the checkout.

    ``root`` may be a worktree's: all of them name the same store by the same path.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{Workspace(root).owner.root.absolute() / _DATABASE}"


def artifact_root(uri: str) -> str | None:
    """Where new experiments keep their files: beside a SQLite database; None leaves it to the server."""
    database = database_file(uri)
    return (database.parent / "artifacts").as_uri() if database else None


def web_address(uri: str) -> str:
    """Where the pages of MLflow are seen: the server itself, or the one that ``make ui`` runs, or would start."""
    if uri.startswith("http"):
        return shown(uri).rstrip("/")
    return running_ui(uri) or f"http://{HOST}:{MLFLOW_PORT}"


def running_ui(uri: str) -> str | None:
    """Where ``make ui`` shows this store just now; None if it doesn't run, or the store isn't a project's own."""
    database = database_file(uri)
    if database is None or database.parts[-len(_DATABASE.parts) :] != _DATABASE.parts:
        return None
    return mlflow_ui(database.parents[len(_DATABASE.parts) - 1])


def shown(uri: str, text: str | None = None) -> str:
    """``text``, by default ``uri`` itself, without the name and password, or the token, that ``uri`` may hold."""
    login, at, _ = urlsplit(uri).netloc.rpartition("@")
    text = uri if text is None else text
    return text.replace(login + at, "") if login else text


def prepare(root: Path) -> str:
    """Make the store ready for several processes and return its address; call before anything else uses MLflow.

    Raises:
        UserError: the server does not answer (``tracking``), within some 8 seconds.
    """
    uri = tracking_uri(root)
    database = database_file(uri)
    with readable(uri):
        if database:
            _prepare_database(database)
        elif uri.startswith("http"):
            _greet(uri)
    return uri


@contextlib.contextmanager
def readable(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into one message for people (kind ``tracking``)."""
    for name, value in _ENVIRONMENT.items():  # read by MLflow when it is first imported
        os.environ.setdefault(name, value)
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException, sqlite3.Error) as error:
        full = disk_full(error)
        if full:
            raise full from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"MLflow at {shown(uri)} could not be used: {shown(uri, reason)[:300]}",
            "Start or mend the server, or set another MLFLOW_TRACKING_URI; "
            "results are kept and the next run publishes what is missing.",
            kind="tracking",
        ) from error


def database_file(uri: str) -> Path | None:
    path = uri.removeprefix(_SQLITE)
    return Path(path).absolute() if uri.startswith(_SQLITE) and path and path != ":memory:" else None


def _prepare_database(database: Path) -> None:
    """Create or upgrade the database under a lock, beside its place, so that a kill half-way leaves no torso."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils
    from mlflow.utils.file_utils import ExclusiveFileLock

    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MlflowException(str(error)) from error
    with ExclusiveFileLock(str(database.with_name(database.name + ".lock"))):
        if database.exists() and _revision(database) == utils._get_latest_schema_revision():
            return
        draft = database.with_name(database.name + ".new")
        draft.unlink(missing_ok=True)
        _build(draft, database)
        draft.replace(database)


def _revision(database: Path) -> str | None:
    """The schema that ``database`` is at; None for an empty one."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def _build(draft: Path, database: Path) -> None:
    """The latest schema in ``draft``, with what ``database`` holds."""
    from mlflow.store.db import utils
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if database.exists() and database.stat().st_size:
        _copy(database, draft)
        engine = utils.create_sqlalchemy_engine_with_retry(f"{_SQLITE}{draft}")
        utils._upgrade_db(engine)
        engine.dispose()
    else:
        SqlAlchemyStore(f"{_SQLITE}{draft}", artifact_root(f"{_SQLITE}{database}"))._dispose_engine()


def _copy(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _greet(uri: str) -> None:
    """Ask the server for one experiment; two short tries, where MLflow's own settings would wait for minutes."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            max_retries=1,
            backoff_factor=0,
            timeout=_GREETING_SECONDS,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise MlflowException("the server does not answer") from error
    if not answer.ok:
        raise MlflowException(f"it answered {answer.status_code} {answer.reason}")
