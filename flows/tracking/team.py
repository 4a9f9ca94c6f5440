"""What comes before the team's MLflow server: settings checked, database made or upgraded, rights written."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from components.errors import UserError
from flows.tracking import store

_SECRETS = {
    "MLFLOW_BACKEND_STORE_URI": "the database, postgresql://USER:PASSWORD@HOST/NAME",
    "MLFLOW_ARTIFACTS_DESTINATION": "the bucket, s3://BUCKET/PATH (and MLFLOW_S3_ENDPOINT_URL unless it is Amazon's)",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "the password that the admin gets at the first start, of 12 characters or more",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "any long random text, the same for all servers of the team",
}
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_DRIVER = "postgresql+psycopg"
_SHORTEST_PASSWORD = 12  # MLflow's own limit
_PASSWORDS_KEPT = 60  # seconds; checking one takes longer than most answers, and a publication asks a hundred times


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What has to be set, with the database's address as SQLAlchemy needs it for psycopg.

    Raises:
        UserError: something is missing, or of another kind than expected (``parameters``); no value is shown.
    """
    missing = [f"  {name}: {purpose}" for name, purpose in _SECRETS.items() if not environment.get(name)]
    if missing:
        raise UserError(
            "The team's MLflow server is not started; its environment lacks\n" + "\n".join(missing),
            "Set them from your secret store; mlflow/README.md has an example. There are no defaults.",
            "parameters",
        )
    found = {name: environment[name] for name in _SECRETS}
    address = _for_driver(found["MLFLOW_BACKEND_STORE_URI"])
    if not found["MLFLOW_ARTIFACTS_DESTINATION"].startswith("s3://"):
        raise _other("MLFLOW_ARTIFACTS_DESTINATION", "a bucket: s3://BUCKET/PATH")
    if len(found["MLFLOW_AUTH_ADMIN_PASSWORD"]) < _SHORTEST_PASSWORD:
        raise _other("MLFLOW_AUTH_ADMIN_PASSWORD", f"at least {_SHORTEST_PASSWORD} characters")
    return {**found, "MLFLOW_BACKEND_STORE_URI": address}


def _for_driver(address: str) -> str:
    """The address for psycopg, with whatever a password may hold percent-encoded: MLflow splits it as a URL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    expected = (
        "a PostgreSQL address, postgresql://USER:PASSWORD@HOST:PORT/NAME, where PORT is a number "
        "and an @ in the password is written %40"
    )
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # their messages show the address
        raise _other("MLFLOW_BACKEND_STORE_URI", expected) from None
    # Behind an @ of the password the rest of it would be taken for the host, and shown.
    if url.drivername not in _SCHEMES or "@" in f"{url.host}{url.database}":
        raise _other("MLFLOW_BACKEND_STORE_URI", expected)
    return url.set(drivername=_DRIVER).render_as_string(hide_password=False)


def _other(name: str, expected: str) -> UserError:
    return UserError(
        f"{name} is not what was expected: {expected}.",
        "Set another one; it is a secret, not shown here.",
        "parameters",
    )


def write_rights(path: Path, database: str, permission: str) -> None:
    """``basic_auth.ini``, which none but its owner may read: it holds the database's address, and no password of
    MLflow's own.

    Raises:
        UserError: it can't be written (``tracking``).
    """
    file = configparser.ConfigParser(interpolation=None)
    file["mlflow"] = {
        "default_permission": permission,
        "database_uri": database.replace("%", "%%"),  # MLflow reads it with interpolation
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": str(_PASSWORDS_KEPT),
    }
    draft = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
            file.write(target)
        draft.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} can't be written: {error.strerror or error}.",
            "Start the server in a folder that is yours, or name another file: MLFLOW_AUTH_CONFIG_PATH.",
            "tracking",
        ) from error


def prepare_database(address: str) -> None:
    """The tables of runs, models and users, made or upgraded.

    Raises:
        UserError: the database does not answer, refuses us, or is newer than this MLflow (``tracking``).
    """
    try:
        import psycopg  # noqa: F401  # SQLAlchemy's driver
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        _upgrade(address)
    except ImportError as error:
        raise UserError(
            f"The team's MLflow server needs '{error.name}', which is not installed.",
            "Install what it needs: `pip install -c requirements.lock -e '.[team]'`.",
            "tracking",
        ) from error
    except CommandError as error:  # alembic's: the database is at a revision that this MLflow doesn't know
        remedy = "Was it upgraded by a newer version? Install that one here, or restore the backup from before."
        raise _unusable(address, error, remedy) from error
    except (SQLAlchemyError, MlflowException, OSError) as error:
        raise _unusable(address, error, "Is it up, is the database made, may this user make tables in it?") from error


def _upgrade(address: str) -> None:
    """One connection at a time, so nothing races."""
    from mlflow.server.auth.db import utils as users
    from mlflow.store.db import utils as tables

    engine = tables.create_sqlalchemy_engine(address)
    try:
        with engine.connect():  # MLflow itself would try again for minutes
            pass
        if tables._all_tables_exist(engine):
            tables._upgrade_db(engine)
        else:
            tables._initialize_tables(engine)
        users.migrate_if_needed(engine, "head")
    finally:
        engine.dispose()


def _unusable(address: str, error: Exception, remedy: str) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    message = f"The database of the team's MLflow server can't be used: {store.shown(address, reason)[:300]}"
    return UserError(message, remedy, "tracking")


def main() -> int:
    """Prepare all, and print the database's address for team.sh."""
    try:
        found = settings(os.environ)
        address = found["MLFLOW_BACKEND_STORE_URI"]
        place = Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
        write_rights(place, address, os.environ["MLFLOW_DEFAULT_PERMISSION"])
        prepare_database(address)  # MLflow reads the file when its part for users is imported
    except UserError as error:
        print(f"{error.message}\n{error.remedy}", file=sys.stderr)
        return 2
    print(address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
