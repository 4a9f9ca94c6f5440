"""Checkpoints of stages that train: what a run would resume, and when they are removed.

The rule: the checkpoint of a result that dvc.lock holds is removed by the run that made it; one that nothing has
touched for ``checkpoints.keep_days`` goes; of each stage the ``checkpoints.newest`` newest stay, whatever parameters,
data and code they are for. What a process trains in stays. Results are never lost by any of this, only time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components import fingerprint, keeping
from components.component import COMPONENTS
from components.errors import UserError
from components.fingerprint import Parts
from components.loader import load_params
from components.ml.training.seal import SEAL, said_of
from components.params.project import Checkpoints
from flows.repo import acceptances
from flows.repo.workspace import Workspace

DAY = 24 * 3600


@dataclass(frozen=True)
class Checkpoint:
    """Where an interrupted stage can go on: ``step`` of ``total`` over all its phases.

    ``accepted`` names the code files whose edits the user vouched for since it was written. For a stage that trains
    several models one after the other, the steps are those of the models that have a checkpoint.
    """

    stage: str
    fingerprint: str
    step: int
    total: int
    accepted: tuple[str, ...] = ()


def resumable(workspace: Workspace, stage: str) -> Checkpoint | None:
    """The checkpoint from which ``stage`` would go on with its present inputs; None when it would start anew."""
    if not keeping.folders(place_of(workspace, stage)) or not settings(workspace).every:
        return None
    found = present(workspace, stage)
    return None if found is None else read(place_of(workspace, stage) / fingerprint.digest(found))


def clean(workspace: Workspace, finished: list[str]) -> list[str]:
    """Remove the checkpoints of ``finished`` stages, whose results dvc.lock holds, and old ones of any stage.

    A result that was trained from an accepted checkpoint is known as accepted from then on.

    Args:
        finished: every stage that is up to date now, whether it ran or not.

    Returns:
        What was removed, in words.
    """
    done = {_finished(workspace, stage) for stage in finished}
    rule, removed = settings(workspace), []
    for place in sorted((workspace.root / keeping.CHECKPOINTS).glob("*/")):
        keeping.sweep(place)
        for folder, why in _doomed(place, done, rule):
            if _remove(folder):
                removed.append(f"a checkpoint of {place.name}: {why}")
    return removed


def read(folder: Path) -> Checkpoint | None:
    """The checkpoint in the folder of a fingerprint; None if there is no whole one."""
    steps: dict[Path, tuple[int, int]] = {}
    for sealed in folder.glob(f"**/{SEAL}"):
        said = said_of(sealed.parent)
        if said is not None and sealed.parent.suffix != ".new":
            model = sealed.parents[2]  # MODEL/PHASE/checkpoint-10/SEAL
            steps[model] = max(steps.get(model, (0, 0)), (said["step"], said["total"]))
    if not steps:
        return None
    accepted = (keeping.read_parts(folder) or {"accepted": []})["accepted"]
    step, total = (sum(numbers) for numbers in zip(*steps.values(), strict=True))
    return Checkpoint(folder.parent.name, folder.name, step, total, tuple(accepted))


def present(workspace: Workspace, stage: str) -> Parts | None:
    """What the fingerprint of ``stage`` is made from now; None while an input is missing or nonsense."""
    component = COMPONENTS.get(stage)
    if component is None or not component.resumes:
        return None
    try:
        return fingerprint.parts(component, load_params(workspace.root / "params.yaml"), workspace.root)
    except (UserError, SyntaxError, ValueError):  # of parameters, code, runtime.json: whoever runs it is told
        return None


def place_of(workspace: Workspace, stage: str) -> Path:
    """The folder of a stage's fingerprints."""
    return workspace.root / keeping.CHECKPOINTS / stage


def settings(workspace: Workspace) -> Checkpoints:
    """How often checkpoints are written and how long they are kept."""
    try:
        return load_params(workspace.root / "params.yaml").checkpoints
    except UserError:
        return Checkpoints()


def touched(folder: Path) -> float:
    """When training last began there or wrote a checkpoint."""
    marks = [folder, folder / keeping.PARTS_FILE, *folder.glob(f"**/{SEAL}")]
    return max((path.stat().st_mtime for path in marks if path.exists()), default=0.0)


def _finished(workspace: Workspace, stage: str) -> Path | None:
    """The folder that belongs to the present result, where there can be one; tells that it was accepted, if so."""
    if not keeping.folders(place_of(workspace, stage)) and not acceptances.pending(workspace, stage):
        return None
    found = present(workspace, stage)
    if found is None:
        return None
    folder = place_of(workspace, stage) / fingerprint.digest(found)
    acceptances.carry(workspace, stage, folder.name)
    return folder


def _doomed(place: Path, done: set[Path | None], rule: Checkpoints) -> Iterator[tuple[Path, str]]:
    others = []
    for folder in sorted(keeping.folders(place), key=touched, reverse=True):
        if folder in done:
            yield folder, "its result is in dvc.lock"
        else:
            others.append(folder)
    for index, folder in enumerate(others):
        if touched(folder) < time.time() - rule.keep_days * DAY:
            yield folder, f"not touched for {rule.keep_days:g} days"
        elif index >= rule.newest:
            yield folder, f"{rule.newest} newer ones are kept"


def _remove(folder: Path) -> bool:
    """Remove a folder unless something trains in it."""
    lock = keeping.try_hold(folder)
    if lock is None:
        return False
    with lock:
        keeping.remove_held(folder)
    return True
