"""The faults: each is done to a run of a project, and must end in the right result or a clear error."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.projects import Project
from tests.soak.runs import ENDS_WITHIN, TARGETS, Ended, Run, read_only, small_disk, wait_until_quiet

RECOVERED = "recovered: the next run ended in the right result"
REFUSED = "refused with a clear error; right once the fault was gone"
UNHARMED = "unharmed: right in spite of it"
TOO_LATE = "came too late: the run had ended"
SKIPPED = "not possible on this machine"


class Wrong(AssertionError):
    """A wrong or half-written result, a crash without words, or something left behind."""


@dataclass
class Tally:
    """How many faults of each kind were injected, and what became of them."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, fault: str, outcome: str, number: int = 1) -> None:
        """Count."""
        self.counts[fault, outcome] += number

    def kills(self) -> int:
        """Kills that hit something."""
        return sum(n for (fault, outcome), n in self.counts.items() if fault.startswith("kill") and outcome != TOO_LATE)

    def lines(self) -> list[str]:
        """A table in plain text."""
        width = max((len(fault) for fault, _ in self.counts), default=0)
        return [f"{fault:<{width}}  {number:>4}  {outcome}" for (fault, outcome), number in sorted(self.counts.items())]


@dataclass
class Attack:
    """A project under attack and what its results must be.

    ``expected`` are the files of a finished, undisturbed run, ``lock`` its dvc.lock.
    """

    project: Project
    expected: dict[str, bytes]
    lock: dict[str, object]
    draw: random.Random
    tally: Tally
    logs: Path

    def start(self, *options: str, **environment: str) -> Run:
        """Start a run."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return Run(self.project, self.logs / f"{time.monotonic_ns()}.log", *options, **environment)

    def check_nothing_half_written(self) -> None:
        """Whatever lies under a stage's name is what the stage writes, to the last byte of every file.

        Raises:
            Wrong: it isn't.
        """
        for stage in self.project.stages:
            mine = {path: data for path, data in self.expected.items() if path.startswith(f"artifacts/{stage}/")}
            folder = self.project.root / "artifacts" / stage
            if not folder.exists():
                continue
            for path, data in mine.items():
                found = self.project.root / path
                # DVC puts a restored folder in place file by file: some may be missing, none may differ.
                if found.exists() and found.stat().st_size and found.read_bytes() != data:
                    raise Wrong(f"{path} is not what {stage} writes ({found.stat().st_size} bytes)")

    def check_quiet(self) -> None:
        """No process of the run outlives it for long.

        Raises:
            Wrong: one does.
        """
        if left := wait_until_quiet(self.project.root, ENDS_WITHIN):
            raise Wrong(f"left behind after {ENDS_WITHIN:g} s: {left}")

    def finish(self, *options: str) -> Ended:
        """An undisturbed run, which must end in the right result.

        Raises:
            Wrong: it doesn't.
        """
        run = self.start(*options)
        ended = run.wait()
        if ended.code:
            raise Wrong(f"the undisturbed run ended with {ended.code}:\n{ended.output[-3000:]}")
        self.check_right()
        self.check_quiet()
        return ended

    def check_right(self) -> None:
        """The results and dvc.lock are those of a run that nobody disturbed.

        Raises:
            Wrong: they aren't.
        """
        found = self.project.results()
        differing = sorted(
            path for path in self.expected.keys() | found.keys() if self.expected.get(path) != found.get(path)
        )
        if differing:
            raise Wrong(f"wrong results: {differing[:5]}")
        if self.project.lock() != self.lock:
            raise Wrong("dvc.lock differs from the undisturbed run's")


def is_clear(ended: Ended) -> bool:
    """Whether a failed run said what is wrong and what to do, without a traceback."""
    return (
        ended.code in (2, 130)
        and "Traceback" not in ended.output
        and bool(re.search(r"Error:|Interrupted", ended.output))
    )


def kill_somewhere(attack: Attack, target: str, stage: str | None, *options: str, longest: float = 0.6) -> bool:
    """Start a run and kill -9 ``target`` at a random moment of ``stage``; whether anything was hit."""
    run = attack.start(*options)
    if stage is None:
        time.sleep(attack.draw.uniform(0.0, 6.0))
    elif run.await_stage(stage):
        time.sleep(attack.draw.uniform(0.0, longest))
    hit = run.kill(target, stage)
    ended = run.wait()
    name = f"kill -9 of the {hit or target}" + (f" in {stage}" if stage and attack.project.kind == "tiny" else "")
    attack.check_quiet()
    attack.check_nothing_half_written()
    if hit is None:
        attack.tally.add(name, TOO_LATE)
        return False
    if "Traceback" in ended.output:
        raise Wrong(f"{name}: {ended.output[-3000:]}")
    attack.tally.add(name, RECOVERED)
    return True


def interrupt(attack: Attack, number: signal.Signals, stage: str, *options: str) -> None:
    """SIGTERM or Ctrl-C: everything ends within ten seconds and the run says so."""
    run = attack.start(*options)
    if not run.await_stage(stage):
        attack.tally.add(number.name, TOO_LATE)
        return
    time.sleep(attack.draw.uniform(0.0, 0.4))
    run.process.send_signal(number)
    ended = run.wait(ENDS_WITHIN)
    attack.check_quiet()
    attack.check_nothing_half_written()
    if not is_clear(ended):
        raise Wrong(f"{number.name}: ended with {ended.code}:\n{ended.output[-3000:]}")
    attack.tally.add(number.name, RECOVERED)


def forget_results(attack: Attack) -> None:
    """As in a new clone whose cache is empty: every stage must run again."""
    root = attack.project.root
    for folder in ("artifacts", ".dvc/cache/runs"):
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)


def full_disk(attack: Attack, megabytes: float) -> None:
    """The outputs' disk is too small: a clear error, and a right result when there is room."""
    forget_results(attack)
    folder = attack.project.root / "artifacts"
    with small_disk(folder, megabytes) as possible:
        if not possible:
            attack.tally.add("full disk", SKIPPED)
            return
        ended = attack.start().wait()
        attack.check_nothing_half_written()
        if ended.code == 0:
            raise Wrong("a run on a full disk claims to have succeeded")
        if not (is_clear(ended) and "full" in ended.output):
            raise Wrong(f"full disk: {ended.code}\n{ended.output[-3000:]}")
    attack.finish()
    attack.tally.add("full disk", REFUSED)


def read_only_cache(attack: Attack) -> None:
    """DVC's cache can't be written: a clear error, and a right result when it can."""
    forget_results(attack)
    with read_only(attack.project.root / ".dvc/cache") as possible:
        if not possible:
            attack.tally.add("read-only cache", SKIPPED)
            return
        ended = attack.start().wait()
        if ended.code == 0 or not is_clear(ended):
            raise Wrong(f"read-only cache: {ended.code}\n{ended.output[-3000:]}")
    attack.finish()
    attack.tally.add("read-only cache", REFUSED)


def corrupted_cache(attack: Attack) -> None:
    """A cached file's bytes are wrong, and its output must be restored from there: never the wrong bytes."""
    root = attack.project.root
    victim = attack.draw.choice(sorted(path for path in attack.expected if len(attack.expected[path]) > 8))
    cached = [
        path
        for path in (root / ".dvc/cache/files").rglob("*")
        if path.is_file() and path.read_bytes() == attack.expected[victim]
    ]
    for path in cached:
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[attack.draw.randrange(len(data))] ^= 0xFF
        path.write_bytes(bytes(data))
    shutil.rmtree(root / "artifacts" / Path(victim).parts[1])
    ended = attack.start().wait()
    if ended.code == 0:
        attack.check_right()
        attack.tally.add("corrupted cache file", RECOVERED)
        return
    if not is_clear(ended):
        raise Wrong(f"corrupted cache file: {ended.code}\n{ended.output[-3000:]}")
    attack.check_nothing_half_written()
    attack.finish()
    attack.tally.add("corrupted cache file", REFUSED)


def two_at_once(attack: Attack) -> None:
    """Two runs in one workspace: one works, the other is refused or finds everything done."""
    forget_results(attack)
    runs = [attack.start() for _ in range(2)]
    ends = [run.wait() for run in runs]
    for ended in ends:
        if ended.code and not is_clear(ended):
            raise Wrong(f"two at once: {ended.code}\n{ended.output[-3000:]}")
    if all(ended.code for ended in ends):
        raise Wrong("two at once: neither ran\n" + "\n".join(ended.output[-1500:] for ended in ends))
    attack.check_right()
    attack.check_quiet()
    attack.tally.add("two runs at once", UNHARMED)


def torn_file(attack: Attack, name: str) -> None:
    """A file that DVC rewrites in place was cut short by a kill: put right, or refused with what to do."""
    path = attack.project.root / name
    if not path.exists():
        attack.tally.add(f"torn {name}", TOO_LATE)
        return
    data = path.read_bytes()
    path.write_bytes(data[: attack.draw.randrange(1, len(data))])
    ended = attack.start().wait()
    if ended.code and not is_clear(ended):
        raise Wrong(f"torn {name}: {ended.code}\n{ended.output[-3000:]}")
    if ended.code:
        path.write_bytes(data)
    attack.finish()
    attack.tally.add(f"torn {name}", REFUSED if ended.code else RECOVERED)


Fault = Callable[[Attack], None]
KILLED = TARGETS


def unfinished(attack: Attack) -> list[str]:
    """The stages whose results aren't there."""
    return [stage for stage in attack.project.stages if not (attack.project.root / "artifacts" / stage).exists()]


def forget_checkpoints(attack: Attack) -> None:
    """Training starts anew."""
    shutil.rmtree(attack.project.root / ".stillhouse/checkpoints", ignore_errors=True)


def tracking_server_dies(attack: Attack) -> None:
    """MLflow's server is killed while a stage trains: results are right, and the next run publishes them."""
    from tests.servers import mlflow_server

    forget_results(attack)
    forget_checkpoints(attack)
    with mlflow_server(attack.project.root.parent / "mlflow") as server:
        run = attack.start(MLFLOW_TRACKING_URI=server.address)
        if not run.await_stage("distill"):
            raise Wrong(f"tracking server: the run never came to distill\n{run.wait().output[-3000:]}")
        server.kill()
        ended = run.wait()
        attack.check_right()
        if "Traceback" in ended.output or "publish" not in ended.output:
            raise Wrong(f"tracking server: {ended.code}\n{ended.output[-3000:]}")
        server.start()
        again = attack.start(MLFLOW_TRACKING_URI=server.address).wait()
        if again.code or "Not done" in again.output or server.finished_runs() < 5:
            raise Wrong(f"tracking server: not published afterwards\n{again.output[-3000:]}")
    attack.check_quiet()
    attack.tally.add("tracking server killed in mid-run", RECOVERED)
