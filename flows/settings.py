"""Environment of every library we start: telemetry off, state inside the repo, quiet consoles."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path(".stillhouse")

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
}
QUIET = {
    # Task and flow logs go to the Prefect server, from INFO on; the terminal shows our own display.
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def apply(root: Path) -> None:
    """Set the environment, before any of the libraries is imported; what the user has set wins, telemetry apart."""
    os.environ.update(TELEMETRY_OFF)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not (os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE")):
        os.environ.setdefault("PREFECT_HOME", str((root / STATE / "prefect").resolve()))
