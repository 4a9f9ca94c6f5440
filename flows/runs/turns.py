"""Whose turn it is: how many stages run at once, and that none starts after a failure or an interruption."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from flows.runs.processes import Process


class NotStarted(RuntimeError):
    """A stage that was waiting for its turn when another failed or the flow was interrupted."""


class Turns:
    """Hands out ``parallel`` turns to run; none after a failure or an interruption."""

    def __init__(self, parallel: int) -> None:
        self._free = threading.Semaphore(parallel)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.failure: Exception | None = None
        self.because = ""
        self.remote_away = False  # nobody asks it again in this run
        self.running: list[str] = []
        self.processes: list[Process] = []

    @contextlib.contextmanager
    def turn(self, name: str, will_retry: Callable[[object], bool] = lambda _: False) -> Iterator[None]:
        """Wait for a turn; what is raised in it stops the stages that still wait, unless it will be tried again.

        Raises:
            NotStarted: there are no more turns.
        """
        with self._free:
            if self.stopped:
                raise NotStarted("not started: the run was stopped before its turn came")
            self.running.append(name)
            try:
                yield
            except BaseException as error:
                if not will_retry(error) or self.stopped:
                    self.stop()
                    if self.failure is None and isinstance(error, Exception):
                        self.failure = error
                raise
            finally:
                if not self.because:  # else it stays to be told
                    self.running.remove(name)

    def started(self, process: Process) -> None:
        """Take a stage's process, to end it with the others; at once if that has been while it started."""
        with self._lock:
            self.processes.append(process)
        if self.because:
            process.end()

    def stop(self, because: str = "") -> None:
        """Give out no more turns; ``because`` of an interruption, those that run count as stopped by it."""
        self.because = self.because or because
        self._stopped.set()

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond an interruption or another stage's failure."""
        self._stopped.wait(seconds)

    @property
    def stopped(self) -> bool:
        """Whether there are no more turns."""
        return self._stopped.is_set()
