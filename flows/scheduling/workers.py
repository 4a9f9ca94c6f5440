"""The worker that carries out scheduled runs, and how its runs end with it.

By itself a Prefect worker that is interrupted kills its runs before they can tell how they ended, and one that is
killed leaves them behind. So `stillhouse worker` gives its runs a file to hold: when the file is gone, or the
worker is, a run ends by itself, and the worker waits until nobody holds the file any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flows.runs.processes import Process
from flows.settings import TELEMETRY_OFF

POOL = "stillhouse"
PROJECT = "STILLHOUSE_PROJECT"
"""In a worker's environment: the project's folder on its machine; the pull step of prefect.yaml goes there."""
SIGN = "STILLHOUSE_WORKER"
"""In the environment of a worker's runs: the file that they hold."""
ENDING_SECONDS = 6.5  # with the worker's own end less than ten


def work(root: Path, say: Callable[[str], None]) -> int:
    """Run a worker of the pool in the foreground; its exit code. PREFECT_API_URL must be known.

    It ends with us, and its runs end with it.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    codes: list[int] = []
    descriptor, sign = tempfile.mkstemp(prefix="stillhouse-worker-")
    with contextlib.ExitStack() as ends:
        process = Process(command, root, environment(root) | {SIGN: sign})
        ends.callback(process.end)
        ends.callback(_dismiss, descriptor, Path(sign))  # before the worker, which would kill them
        reader = threading.Thread(target=lambda: codes.append(process.follow(say)[0]), daemon=True)
        reader.start()
        while reader.is_alive():
            reader.join(0.5)
    return codes[0] if codes else 1


def environment(root: Path) -> dict[str, str]:
    """What a worker's process needs besides our environment."""
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return TELEMETRY_OFF | {
        PROJECT: str(root),
        "PYTHONPATH": os.pathsep.join(paths),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        # Else a `uv` on the path would install a project's dependencies before each run.
        "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
    }


def _dismiss(descriptor: int, sign: Path) -> None:
    """Have the runs end, and wait until they have."""
    sign.unlink(missing_ok=True)
    deadline = time.monotonic() + ENDING_SECONDS
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.1)
    finally:
        os.close(descriptor)


class Worker:
    """The worker that started this process, as one of its runs sees it."""

    def __init__(self) -> None:
        self._process = os.getppid()
        self._sign = os.environ.get(SIGN)
        if self._sign:
            with contextlib.suppress(OSError):  # told by `gone`
                # Never closed: held until this process has ended. What it starts doesn't inherit it.
                fcntl.flock(os.open(self._sign, os.O_RDONLY), fcntl.LOCK_SH)

    @property
    def gone(self) -> bool:
        """Whether it has died or is being ended."""
        return os.getppid() != self._process or bool(self._sign and not Path(self._sign).exists())
