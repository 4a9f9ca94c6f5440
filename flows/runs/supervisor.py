"""Runs one command in its own process group and ends the whole group when the pipe to its starter closes.

Started as a script (standard library only, so that it is up at once): ``supervisor.py FD GRACE COMMAND...``.
The starter holds the other end of pipe FD and never writes to it. If the starter dies, even by SIGKILL,
the kernel closes its end; a parent-death signal is no substitute, since it fires when a thread ends.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 3.0
POLL_SECONDS = 0.05


def main(starter: int, command: list[str], grace: float = GRACE_SECONDS) -> int:
    """Run ``command``; its exit code, or 128 + the number of the signal that ended it."""
    asked_to_end: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: asked_to_end.append(received))
    try:
        child = subprocess.Popen(command, process_group=0)
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return 127
    while child.poll() is None:
        if asked_to_end or select.select([starter], [], [], POLL_SECONDS)[0]:
            end_group(child, grace)
    _signal_group(child.pid, signal.SIGKILL)  # whatever the command left behind
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def end_group(child: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """Ask the group to end, and after a grace period make it."""
    deadline = time.monotonic() + grace
    _signal_group(child.pid, signal.SIGTERM)
    while _signal_group(child.pid, 0) and time.monotonic() < deadline:
        child.poll()  # reap it, or its group would seem alive
        time.sleep(POLL_SECONDS)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: int) -> bool:
    """Whether anyone was there, be it one that we may not send signals to."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # nobody but members that have become another user's
        return True
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[3:], float(sys.argv[2])))
