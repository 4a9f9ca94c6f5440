"""Keeping a stage's result or checkpoint across a code edit that the user vouches for.

An accepted result is recorded in dvc.lock as made by the present code, an accepted checkpoint gets the present
fingerprint; ``flows.repo.acceptances`` remembers which they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components import fingerprint, keeping
from components.errors import UserError
from flows.repo import acceptances, checkpoints, graph, integrity
from flows.repo.acceptances import accepted
from flows.repo.checkpoints import Checkpoint
from flows.repo.choice import Choice
from flows.repo.reasons import input_changes, parameter_changes
from flows.repo.workspace import Workspace

__all__ = ["accept", "accepted"]


@dataclass(frozen=True)
class _Difference:
    """What differs from the present state: code files that were edited, all else in words, lost outputs to restore."""

    edits: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def accept(workspace: Workspace, stage: str) -> list[str]:
    """Keep the result of ``stage``, or else its newest checkpoint, though its code was edited since.

    Returns:
        What was kept across which edits, in sentences.

    Raises:
        UserError: there is nothing to keep, nothing was edited, or more than code differs (names what).
    """
    result = _since_result(workspace, stage)
    if result is not None and not result.others:
        if not result.edits:
            raise UserError(f"Nothing to accept: the result of {stage} is up to date.")
        return [_keep_result(workspace, stage, result)]
    obstacles = [] if result is None else ["of its result: " + "; ".join(result.others)]
    kept = _keep_checkpoint(workspace, stage, obstacles)
    if kept is not None:
        return [kept]
    if not obstacles:
        raise UserError(f"Nothing to accept: {stage} has neither a result nor a checkpoint.")
    raise UserError(
        f"Expected {stage} to differ in its code alone; found other differences,\n  " + "\n  ".join(obstacles),
        "Only code edits can be accepted: undo the rest, or run the stage again.",
        "pipeline",
    )


# Results


def _since_result(workspace: Workspace, stage: str) -> _Difference | None:
    """What changed since the result was made that dvc.lock holds; None if it holds none."""
    with workspace.repo() as repo:
        stages, tracked = graph.build(repo, workspace.root)
        Choice(only=(stage,)).names(stages)  # there is such a stage
        if stage not in workspace.lock_entries():
            return None
        return _of_tracked(tracked[stage], workspace.root)


def _of_tracked(tracked: Any, root: Path) -> _Difference:
    found = _Difference()
    if tracked.changed_stage():
        found.others.append("the command changed")
    for dep in tracked.params:
        found.others.extend(parameter_changes(dep))
    for dep in graph.files_read(tracked):
        if not dep.status():
            continue
        name = graph.relative(dep.fs_path, root).as_posix()
        if name.endswith(".py") and dep.exists:
            found.edits.append(name)
        else:
            found.others.extend(input_changes(dep, root))
    for out in tracked.outs:
        name = graph.relative(out.fs_path, root).as_posix()
        for state in out.workspace_status().values():
            if state == "deleted" and not out.changed_cache():
                found.lost.append(out.fs_path)
            else:
                found.others.append(f"{name} is {'missing' if state == 'deleted' else 'not as the stage left it'}")
    return found


def _keep_result(workspace: Workspace, stage: str, found: _Difference) -> str:
    """Have DVC record the outputs as they are, made by the code as it is."""
    before = workspace.lock_entries()[stage]
    with contextlib.chdir(workspace.root), workspace.repo() as repo:  # DVC keeps runs of the current folder only
        if found.lost:
            repo.checkout(targets=found.lost)
    if damaged := integrity.discard_damaged(workspace, stage):
        raise UserError(
            f"{', '.join(damaged)}: DVC's cache held other bytes than dvc.lock names; they are removed.",
            f"There is nothing left to keep: `stillhouse run --only {stage}` makes it anew.",
            kind="data",
        )
    with contextlib.chdir(workspace.root), workspace.repo() as repo:
        repo.commit(target=stage, force=True)
    files = _together(found.edits, acceptances.edited_since(workspace, stage, before))
    acceptances.remember(workspace, stage, workspace.lock_entries()[stage], files)
    return f"The result of {stage} is kept across edits of {', '.join(files)}: dvc.lock has it as made by this code."


# Checkpoints


def _keep_checkpoint(workspace: Workspace, stage: str, obstacles: list[str]) -> str | None:
    """Give the newest checkpoint that differs in its code alone the present fingerprint; else add to ``obstacles``."""
    found = {folder: kept for folder in _newest_first(workspace, stage) if (kept := checkpoints.read(folder))}
    if not found:
        return None
    now = checkpoints.present(workspace, stage)
    if now is None:
        obstacles.append("of its checkpoint: its inputs are not all there")
        return None
    target = checkpoints.place_of(workspace, stage) / fingerprint.digest(now)
    differences: list[str] = []
    for folder, checkpoint in found.items():
        parts = (keeping.read_parts(folder) or {}).get("parts")
        if folder == target or parts is None:
            continue
        others = fingerprint.other_inputs(parts, now)
        if not others:
            files = _together(checkpoint.accepted, fingerprint.other_code(parts, now))
            return _move(checkpoint, folder, target, now, files)
        differences = differences or [f"of its newest checkpoint: {'; '.join(others)}"]
    if target in found:
        raise UserError(f"Nothing to accept: {stage} goes on at step {found[target].step} of {found[target].total}.")
    obstacles.extend(differences)
    return None


def _newest_first(workspace: Workspace, stage: str) -> list[Path]:
    return sorted(keeping.folders(checkpoints.place_of(workspace, stage)), key=checkpoints.touched, reverse=True)


def _move(checkpoint: Checkpoint, folder: Path, target: Path, now: fingerprint.Parts, files: list[str]) -> str:
    """Put the checkpoint where the stage will look for it; whoever trains there is left alone."""
    there = checkpoints.read(target)
    if there is not None and there.step >= checkpoint.step:
        raise UserError(
            f"Nothing to accept: {checkpoint.stage} goes on at step {there.step} of {there.total} with the present "
            f"code; its checkpoint from before the edit is at step {checkpoint.step}."
        )
    with contextlib.ExitStack() as stack:
        for place in (folder, target):
            stack.enter_context(_held(place, checkpoint.stage))
        if target.is_dir():
            keeping.remove_held(target)
        keeping.write_parts(folder, now, files)
        folder.rename(target)
    return (
        f"The checkpoint of {checkpoint.stage} at step {checkpoint.step} of {checkpoint.total} is kept across edits "
        f"of {', '.join(files)}: the next run goes on from it."
    )


@contextlib.contextmanager
def _held(folder: Path, stage: str) -> Iterator[None]:
    lock = keeping.try_hold(folder)
    if lock is None and folder.is_dir():
        raise UserError(f"{stage} is being trained.", "Wait until that ends, or cancel it.", "busy")
    with lock or contextlib.nullcontext():
        yield


def _together(*lists: Iterable[str]) -> list[str]:
    return sorted({name for names in lists for name in names})
