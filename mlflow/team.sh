#!/bin/sh
# Start the team's MLflow server: PostgreSQL, an S3-compatible bucket behind the server's proxy, names and passwords.
# SIGTERM or Ctrl-C ends it. Secrets come from the environment and never stand on a command line, where `ps` shows them.
set -eu
umask 077
code="$(cd "$(dirname "$0")/.." && pwd)"

read_settings() {
    while IFS='=' read -r name value; do
        case "$name" in ''|'#'*) continue ;; esac
        eval "[ -n \"\${$name:-}\" ]" || export "$name=$value"
    done < "$1"
}
read_settings "$code/mlflow/team.env"
read_settings "$code/mlflow/server.env"

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x "$code/.venv/bin/python" ] || PYTHON="$code/.venv/bin/python"
fi
export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"

# Says what is missing; makes or upgrades the database before processes race on it; writes basic_auth.ini.
MLFLOW_BACKEND_STORE_URI=$("$PYTHON" -m flows.tracking.team)
export MLFLOW_BACKEND_STORE_URI
unset MLFLOW_TRACKING_URI  # a client's; the server's own jobs would follow it

# The addresses of the database and the bucket come from MLFLOW_BACKEND_STORE_URI and MLFLOW_ARTIFACTS_DESTINATION.
exec "$PYTHON" -m mlflow server --app-name basic-auth --serve-artifacts \
    --host "$MLFLOW_HOST" --port "$MLFLOW_PORT" --workers "$MLFLOW_WORKERS"
