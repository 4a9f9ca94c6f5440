"""Runs stages again from a clean clone without any cache, and compares what they write with what dvc.lock records."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from components import runtime
from components.errors import UserError
from flows.repo import objects, recorded
from flows.repo.choice import Choice
from flows.repo.graph import Stage
from flows.repo.recorded import Files, Recorded
from flows.repo.workspace import Workspace
from flows.runs.display import Display
from flows.runs.failures import failure
from flows.runs.processes import Process
from flows.verification import clone
from flows.verification.comparing import TOLERANCE, compare_files
from flows.verification.values import DIFFERENT, VERDICTS, Comparison

REPORT = Path("reports/verify.json")


def verify(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    tolerance: float = TOLERANCE,
    display: Display,
    keep: bool = False,
) -> dict[str, Any]:
    """Run all stages, or those named, again from a clean clone and compare each output with the recorded one.

    What a named stage reads of others is put in place as recorded. DVC is not used in the clone, so there is no
    cache and no run-cache that could stand in for running. The verdict also goes to ``reports/verify.json``.

    Args:
        workspace: the checkout.
        names: the stages; none: all.
        tolerance: two numbers count as equal if they differ by no more, relative to the larger where it is above 1.
        display: where progress is told.
        keep: leave the clone in its temporary folder.

    Returns:
        ``verdict`` (equal, within tolerance or different), ``tolerance``, ``commit``, ``edited`` (files with edits
        that aren't committed), ``clone`` (its place if kept), and by stage ``verdict``, ``seconds``, ``outputs``.

    Raises:
        UserError: the tolerance is no number of 0 or more, nothing was run yet, results are outdated, other library
            versions are installed, or a stage can't be run from a clean clone.
    """
    _check_tolerance(tolerance)
    if (workspace.root / runtime.RUNTIME_FILE).exists():
        runtime.check(workspace.root / runtime.RUNTIME_FILE)
    stages = workspace.stages()
    chosen = Choice(only=tuple(names)).names(stages)
    found = recorded.read(workspace, chosen)
    _refuse_outdated(found)
    folder = Path(tempfile.mkdtemp(prefix="stillhouse-verify-"))
    try:
        root, edited = clone.make(workspace, folder / "clone")
        _tell(display, workspace, edited, folder if keep else None)
        for path, files in found.sources.items():
            clone.put(workspace, root / path, files)
        results: dict[str, Any] = {}
        for name in chosen:
            results[name] = _verify_stage(workspace, root, stages[name], found, results, tolerance, display)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    verdict = {
        "verdict": _worst(stage["verdict"] for stage in results.values()),
        "tolerance": tolerance,
        "commit": workspace.git_commit(),
        "edited": edited,
        "clone": str(root) if keep else None,
        "stages": results,
    }
    _write(workspace.root / REPORT, verdict)
    return verdict


def _check_tolerance(tolerance: float) -> None:
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(
            f"Expected a tolerance of 0 or more, such as 1e-6; got {tolerance:g}.",
            "Take 0 where every number must be equal.",
            kind="parameters",
        )


def _refuse_outdated(found: Recorded) -> None:
    if not found.outdated:
        return
    lines = [f"  {name}: {'; '.join(changes[:5])}" for name, changes in found.outdated.items()]
    raise UserError(
        "\n".join(["These results were made with other inputs than the present ones:", *lines]),
        "Run the pipeline first (`stillhouse run`), or go back to the files that the results belong to.",
        kind="pipeline",
    )


def _tell(display: Display, workspace: Workspace, edited: Sequence[str], kept: Path | None) -> None:
    commit = (workspace.git_commit() or "")[:12]
    display.say(f"Running again from a clean clone of {commit}, without any cache.")
    if edited:
        more = f" and {len(edited) - 5} more" if len(edited) > 5 else ""
        display.say(f"Carried over, since the results belong to it: uncommitted {escape(', '.join(edited[:5]))}{more}")
    if kept:
        display.say(f"The clone stays in {escape(str(kept))}")


def _verify_stage(
    workspace: Workspace,
    root: Path,
    stage: Stage,
    found: Recorded,
    done: Mapping[str, Any],
    tolerance: float,
    display: Display,
) -> dict[str, Any]:
    """Run one stage in the clone and compare its outputs; ``done`` are the stages that ran there before it."""
    for upstream in sorted(stage.upstream - done.keys()):
        for path, files in found.outputs[upstream].items():
            if not (root / path).exists():
                clone.put(workspace, root / path, files)
    _check_inputs(stage, root)
    display.start(stage.name)
    started = time.monotonic()
    try:
        _run(stage, root, display)
    except BaseException:
        display.finish(stage.name, "failed")
        raise
    seconds = time.monotonic() - started
    outputs = [
        output
        for path, files in found.outputs[stage.name].items()
        for output in _compare(workspace, path, files, root / path, tolerance)
    ]
    verdict = _worst(output["verdict"] for output in outputs)
    display.finish(stage.name, "ran", verdict)
    differ = [name for name in stage.upstream & done.keys() if done[name]["verdict"] == DIFFERENT]
    return {"verdict": verdict, "seconds": round(seconds, 1), "inputs_differ": sorted(differ), "outputs": outputs}


def _check_inputs(stage: Stage, root: Path) -> None:
    missing = [dep.as_posix() for dep in stage.deps if not (root / dep).exists()]
    if missing:
        raise UserError(
            f"{stage.name} reads {', '.join(missing[:5])}, which a clean clone doesn't have.",
            "Add it to git (`git add`), or to DVC (`dvc add`); files that git ignores don't count.",
            kind="pipeline",
        )


def _run(stage: Stage, root: Path, display: Display) -> None:
    """Run the stage's command as DVC would, but without DVC.

    Raises:
        UserError: the command failed.
    """
    environment = {"DVC_ROOT": str(root), "DVC_STAGE": stage.name}
    process = Process(["/bin/sh", "-e", "-c", stage.command], root, environment)
    code, tail = process.follow(lambda line: display.note(stage.name, line.strip()))
    if code:
        error = failure(root, stage.name, code, tail)
        remedy = error.remedy if isinstance(error, UserError) else ""
        message = error.message if isinstance(error, UserError) else str(error)
        raise UserError(
            f"{stage.name} can't be run again from a clean clone: {message}",
            remedy or "Is a file that it needs missing in git? `git status --ignored` lists what a clone lacks.",
            error.kind if isinstance(error, UserError) else "pipeline",
        )


def _compare(workspace: Workspace, path: str, files: Files, place: Path, tolerance: float) -> list[dict[str, Any]]:
    """Compare every file of an output; those that are missing or too many are different."""
    places = objects.locate(workspace, files.values())
    made = {""} if place.is_file() else {str(item.relative_to(place)) for item in place.rglob("*") if item.is_file()}
    outputs = []
    for name in sorted({*files, *made}):
        before = places[files[name]] if name in files else None
        if before:
            objects.check(before, files[name])
        after = (place / name if name else place) if name in made else None
        outputs.append(_told(f"{path}/{name}" if name else path, compare_files(before, after, tolerance)))
    return outputs


def _told(path: str, found: Comparison) -> dict[str, Any]:
    first = found.first
    return {
        "path": path,
        "verdict": found.verdict,
        "greatest_difference": found.greatest,
        "first_difference": first and {"where": first.where, "recorded": first.recorded, "found": first.found},
    }


def _worst(verdicts: Any) -> str:
    return max(verdicts, key=VERDICTS.index, default=VERDICTS[0])


def _write(path: Path, verdict: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(verdict, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
