"""How a run is stopped: Ctrl-C, SIGTERM, a time limit, a cancellation in Prefect, the death of what started it.

Whatever the reason, it becomes one exception in the main thread. What watches for a reason notes it and sends
SIGTERM to this process. A run that doesn't end in time after that is left at once: its child processes end by
themselves (see supervisor.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import UserError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

PATIENCE_SECONDS = 5.0  # with LAST_WORDS_SECONDS and supervisor.GRACE_SECONDS less than the ten that a run may take
LAST_WORDS_SECONDS = 1.5
POLL_SECONDS = 1.0
STARTER = "STILLHOUSE_DIES_WITH_PARENT"
"""Set to 1, or to a process id: end the run when the process that started it has died."""


@dataclass(frozen=True)
class Reason:
    """Why a run was stopped; ``kind`` is a word for machines."""

    kind: str
    text: str


INTERRUPTED = Reason("interrupted", "cancelled by Ctrl-C")
TERMINATED = Reason("interrupted", "cancelled by SIGTERM")
ORPHANED = Reason("interrupted", "cancelled: the process that started it has died")
CANCELLED = Reason("cancelled", "cancelled from Prefect")


def out_of_time(seconds: float) -> Reason:
    """The run took longer than it may."""
    return Reason("time limit", f"stopped by its time limit of {seconds:g} seconds")


class Stopped(BaseException):
    """The run was stopped. No Exception, so that what handles failures lets it through.

    ``during`` names the stages and side effects that were under way.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason
        self.during: list[str] = []

    def __str__(self) -> str:
        during = f" during {', '.join(self.during)}" if self.during else ""
        return f"{self.reason.text}{during}; what was finished is kept, the last checkpoint too: run again to go on"

    def state(self) -> State[Any]:
        """The state in which the Prefect flow run ends."""
        from prefect.states import Cancelled, Failed

        if self.reason.kind == "time limit":
            return Failed(name="TimedOut", message=str(self))
        return Cancelled(message=str(self))

    def error(self) -> BaseException:
        """What the caller of a run is told."""
        if self.reason.kind == "interrupted":
            return KeyboardInterrupt(str(self))
        message = str(self)
        return UserError(message[0].upper() + message[1:] + ".", "", kind=self.reason.kind)


class Stopper:
    """Turns every reason to stop into one :class:`Stopped` in the main thread. There is one for the process."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.stopped: Stopped | None = None  # what the flow ended with, if it was stopped
        self.flow_run: str | None = None
        self.last_words: list[Callable[[], None]] = []
        self._raised_at: float | None = None

    def listen(self) -> None:
        """Take SIGINT and SIGTERM; also again where a library has taken them since. Only in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._handle)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen, and watch over the process that started us if we were asked to. Once stopped, we listen on:
        what comes then must not disturb the end."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        try:
            with self.watching(_starter_died(), POLL_SECONDS):
                yield
        finally:
            if self.reason is None and threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextlib.contextmanager
    def saying(self, last_words: Callable[[], None]) -> Iterator[None]:
        """What is still said when the run is left at once."""
        self.last_words.append(last_words)
        try:
            yield
        finally:
            self.last_words.remove(last_words)

    def ask(self, reason: Reason) -> None:
        """Stop the run, from any thread; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def watching(self, check: Callable[[], Reason | None] | None, every: float) -> Iterator[None]:
        """Ask ``check`` in the background every so many seconds whether to stop; None watches nothing."""
        if check is None:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(every):
                if reason := check():
                    self.ask(reason)
                    return

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()

    @contextlib.contextmanager
    def time_limit(self, seconds: float | None) -> Iterator[None]:
        """Stop the run after so many seconds."""
        check = None if seconds is None else (lambda: out_of_time(seconds))
        with self.watching(check, seconds or 0.0):
            yield

    def _handle(self, number: int, _frame: object) -> None:
        if self.reason is None:
            self.reason = INTERRUPTED if number == signal.SIGINT else TERMINATED
        now = time.monotonic()
        if self._raised_at is None:
            self._raised_at = now
            threading.Thread(target=self._leave, args=(PATIENCE_SECONDS,), daemon=True).start()
            raise Stopped(self.reason)
        if number == signal.SIGINT and now - self._raised_at > 1:  # a terminal may have sent the first one twice
            threading.Thread(target=self._leave, args=(0.0,), daemon=True).start()

    def _leave(self, after: float) -> None:
        """End this process, whatever it still does; the kernel then closes the pipes that our children watch."""
        time.sleep(after)
        for say in list(self.last_words):
            speaker = threading.Thread(target=say, daemon=True)
            speaker.start()
            speaker.join(LAST_WORDS_SECONDS)
        error = (self.stopped or Stopped(self.reason or INTERRUPTED)).error()
        if isinstance(error, UserError):  # as the command line would have told
            with contextlib.suppress(OSError):
                os.write(2, f"Error: {error.message}\n".encode())
        os._exit(2 if isinstance(error, UserError) else 130)


STOPPER = Stopper()


def _starter_died() -> Callable[[], Reason | None] | None:
    """What tells whether the process that started us has died; None when nobody wants to know."""
    wanted = os.environ.get(STARTER, "")
    if not wanted.isdigit() or int(wanted) == 0:
        return None
    starter = os.getppid() if int(wanted) == 1 else int(wanted)
    return lambda: ORPHANED if os.getppid() != starter else None
