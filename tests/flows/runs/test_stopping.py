"""A run that is left at once still says why, with the exit code of its reason."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAVES = "from flows.runs import stopping\nstopping.STOPPER.reason = {}\nstopping.STOPPER._leave(0.0)\n"


@pytest.mark.parametrize(
    ("reason", "code", "said"),
    [
        ("stopping.out_of_time(6)", 2, "Error: Stopped by its time limit of 6 seconds"),
        ("stopping.CANCELLED", 2, "Error: Cancelled from Prefect"),
        ("stopping.TERMINATED", 130, ""),
    ],
)
def test_leaving_at_once(reason: str, code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES.format(reason)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.startswith(said)) == (code, True)
    assert done.stderr.count("\n") == bool(said)
