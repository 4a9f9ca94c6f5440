"""Whether a tracking server still holds a run, asked without importing MLflow (2.6 s)."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from flows.tracking.store import database_file

ANSWER_SECONDS = 3.0


def holds(uri: str, run_id: str) -> bool:
    """Whether the run ``run_id`` is there and not deleted; True also where that can't be found out now."""
    path = database_file(uri)
    if path:
        if not path.exists():
            return False
        query = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            try:
                return connection.execute(query, (run_id,)).fetchone() is not None
            except sqlite3.Error:
                return False  # publishing will say what is wrong with it
    return _server_holds(uri, run_id) if uri.startswith("http") else True


def _server_holds(uri: str, run_id: str) -> bool:
    import requests

    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    login = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user and not token else None
    try:
        answer = requests.get(
            f"{uri.rstrip('/')}/api/2.0/mlflow/runs/get",
            params={"run_id": run_id},
            headers=headers,
            auth=login,
            timeout=ANSWER_SECONDS,
        )
        if answer.status_code == 404:
            return bool(answer.json().get("error_code") != "RESOURCE_DOES_NOT_EXIST")
        return not answer.ok or bool(answer.json()["run"]["info"]["lifecycle_stage"] == "active")
    except (requests.RequestException, KeyError, ValueError):
        return True
