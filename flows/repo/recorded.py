"""What dvc.lock and .dvc files record: the files of each output and input, and whether inputs are still those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.errors import UserError
from flows.repo import graph, objects
from flows.repo.graph import Stage
from flows.repo.reasons import parameter_changes
from flows.repo.workspace import Workspace

Files = Mapping[str, str]
"""Path -> hash of the files of a folder; of a single file the path is empty."""


@dataclass(frozen=True)
class Recorded:
    """The recorded results: ``outputs`` by stage and path, ``sources`` (what .dvc files pin) by path.

    ``outdated`` says, for each stage whose result was made with other inputs than the present ones, which differ.
    """

    outputs: Mapping[str, Mapping[str, Files]]
    sources: Mapping[str, Files]
    outdated: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read(workspace: Workspace, names: Sequence[str]) -> Recorded:
    """What is recorded of the stages ``names`` and of those right before them.

    Raises:
        UserError: one of them has never run; a listing can't be had.
    """
    with workspace.repo() as repo:
        stages, tracked = graph.build(repo, workspace.root)
        needed = {*names, *(up for name in names for up in stages[name].upstream)}
        pinned = {graph.relative(out.fs_path, workspace.root).as_posix(): _hash(out)
                  for item in repo.index.stages if item.is_data_source for out in item.outs}  # fmt: skip
    entries = workspace.lock_entries()
    if missing := [name for name in stages if name in needed and name not in entries]:
        raise UserError(
            f"There is no result to compare with: {', '.join(missing)} never ran.",
            "Run the pipeline first: `stillhouse run`.",
            kind="pipeline",
        )
    outputs = {
        name: {out["path"]: objects.listing(workspace, out["md5"]) for out in entries[name].get("outs") or []}
        for name in stages
        if name in needed
    }
    sources = {path: objects.listing(workspace, value) for path, value in pinned.items()}
    found = Recorded(outputs, sources)
    outdated = {name: list(_changes(workspace, stages[name], tracked[name], found)) for name in names}
    return Recorded(outputs, sources, {name: changes for name, changes in outdated.items() if changes})


def _hash(out: Any) -> str:
    if not out.hash_info:
        raise UserError(f"{out} is not versioned yet.", "Version it: `dvc add`.", "data")
    return str(out.hash_info.value)


def _changes(workspace: Workspace, stage: Stage, tracked: Any, recorded: Recorded) -> Iterator[str]:
    """Which inputs of the stage are others than dvc.lock says."""
    if tracked.changed_stage():
        yield "the command changed"
    for dep in tracked.params:
        yield from parameter_changes(dep)
    provided = {**recorded.sources, **{path: files for name in stage.upstream
                                       for path, files in recorded.outputs[name].items()}}  # fmt: skip
    for dep in graph.files_read(tracked):
        path = graph.relative(dep.fs_path, workspace.root).as_posix()
        if _present(dep, path, provided) != dep.hash_info.value:
            yield f"{path} changed"


def _present(dep: Any, path: str, provided: Mapping[str, Files]) -> str | None:
    """The hash that a dependency has: as recorded, where a stage or a .dvc file provides it, else as on disk."""
    for holder, files in provided.items():
        if path == holder or path.startswith(f"{holder}/"):
            inside = path.removeprefix(holder).lstrip("/")
            return objects.hash_of(objects.part_of(files, inside) if inside else dict(files))
    return str(dep.get_hash().value) if dep.exists else None
