#!/bin/sh
# Start the MLflow server over the embedded store (.stillhouse/mlflow in the current folder); SIGTERM or Ctrl-C ends it.
# Runs and models that the pipeline wrote straight into the store are shown, files included.
set -eu
code="$(cd "$(dirname "$0")/.." && pwd)"

while IFS='=' read -r name value; do
    case "$name" in ''|'#'*) continue ;; esac
    eval "[ -n \"\${$name:-}\" ]" || export "$name=$value"
done < "$code/mlflow/server.env"

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x "$code/.venv/bin/python" ] || PYTHON="$code/.venv/bin/python"
fi
export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"

# Creates or upgrades the database first: processes that race on a fresh one would break it.
store=$(env -u MLFLOW_TRACKING_URI "$PYTHON" -c \
    'from pathlib import Path; from flows.tracking.store import prepare; print(prepare(Path.cwd()))')

# --artifacts-destination is for clients that log through this server; what was logged directly has its own paths.
exec "$PYTHON" -m mlflow server \
    --host "$MLFLOW_HOST" --port "$MLFLOW_PORT" --workers "$MLFLOW_WORKERS" \
    --backend-store-uri "$store" --artifacts-destination "$PWD/.stillhouse/mlflow/artifacts"
