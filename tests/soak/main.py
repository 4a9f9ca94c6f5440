"""Long fault injection, seeded: ``python -m tests.soak.main --seed 13 --kills 200``; what ``make soak`` runs."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.servers import prefect_server
from tests.soak import faults
from tests.soak.faults import Attack, Tally
from tests.soak.projects import WIDE, Project, make_tiny, make_toy

KILLS_OF_A_ROUND = 10
TINY_STAGES = ["validate", "teacher", "label", "control", "distill", "controls", "finetune", "export", "evaluate"]
TINY_TRAINS = {"teacher", "control", "distill", "finetune"}


def main() -> int:
    """Run all faults; 0 when each ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=13, help="the same seed draws the same faults")
    parser.add_argument("--kills", type=int, default=200, help="kills in all; a quarter of them on the tiny model")
    parser.add_argument("--others", type=int, default=3, help="of each other kind of fault")
    asked = parser.parse_args()
    tally, started = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stillhouse-soak-") as name, prefect_server(Path(name)) as address:
        folder, draw = Path(name), random.Random(asked.seed)
        environment = {"PREFECT_API_URL": address}
        try:
            tiny_kills = asked.kills // 4
            toys(folder, draw, tally, environment, asked.kills - tiny_kills, asked.others)
            tiny(folder, draw, tally, environment, tiny_kills)
        finally:
            report(tally, asked.seed, time.monotonic() - started)
    return 0


def report(tally: Tally, seed: int, seconds: float) -> None:
    """What was done and what became of it."""
    print(
        f"\nseed {seed}, {seconds / 60:.1f} min, {sum(tally.counts.values())} faults, {tally.kills()} of them kills\n"
    )
    print("\n".join(tally.lines()))


def undisturbed(project: Project, folder: Path, draw: random.Random, tally: Tally) -> Attack:
    """Run the project once in peace; from then on its results are what every fault must lead to."""
    attack = Attack(project, {}, {}, draw, tally, folder / "logs")
    ended = attack.start().wait()
    assert ended.code == 0, ended.output
    attack.expected, attack.lock = project.results(), project.lock()
    return attack


def toys(folder: Path, draw: random.Random, tally: Tally, environment: dict[str, str], kills: int, others: int) -> None:
    """Every fault on the torch-free project."""
    project = make_toy(folder / "toy")
    project.environment.update(environment)
    attack = undisturbed(project, folder, draw, tally)
    while tally.kills() < kills:
        faults.forget_results(attack)
        parallel = draw.choice(["1", "4", "12"])
        for _ in range(KILLS_OF_A_ROUND):
            left = faults.unfinished(attack)
            if not left:
                break
            faults.kill_somewhere(attack, draw.choice(faults.KILLED), draw.choice([None, *left[:4]]), parallel)
        attack.finish(parallel)
        say(tally)
    for _ in range(others):
        faults.full_disk(attack, draw.uniform(0.01, 0.08))
        faults.read_only_cache(attack)
        faults.corrupted_cache(attack)
        faults.two_at_once(attack)
        faults.torn_file(attack, "dvc.lock")
        faults.torn_file(attack, ".dvc/tmp/rwlock")
        for number in (signal.SIGTERM, signal.SIGINT):
            faults.forget_results(attack)
            faults.interrupt(attack, number, draw.choice(["source", *WIDE]), "4")
            attack.finish("12")
        say(tally)


def tiny(folder: Path, draw: random.Random, tally: Tally, environment: dict[str, str], kills: int) -> None:
    """Kills in every stage of the whole pipeline on a tiny model, and a tracking server that dies."""
    project = make_tiny(folder / "tiny")
    project.environment.update(environment)
    attack = undisturbed(project, folder, draw, tally)
    before = tally.kills()
    while tally.kills() - before < kills:
        faults.forget_results(attack)
        faults.forget_checkpoints(attack)
        for stage in TINY_STAGES:
            for _ in range(2 if stage in TINY_TRAINS else 1):
                if stage not in faults.unfinished(attack):
                    break  # it ran before another one that was waited for
                longest = 9.0 if stage in TINY_TRAINS else 5.0
                faults.kill_somewhere(attack, draw.choice(faults.KILLED), stage, longest=longest)
        attack.finish()
        say(tally)
    faults.tracking_server_dies(attack)


def say(tally: Tally) -> None:
    """How far it is."""
    print(f"{sum(tally.counts.values())} faults, {tally.kills()} kills", flush=True)


if __name__ == "__main__":
    sys.exit(main())
