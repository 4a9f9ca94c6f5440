"""The stages of dvc.yaml in topological order; works on DVC's stage objects without importing DVC."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One stage of the graph; paths are relative to the workspace, parameters dotted keys.

    ``upstream`` names the stages whose outputs it reads.
    """

    name: str
    command: str
    deps: list[Path]
    outs: list[Path]
    params: list[str]
    upstream: set[str]


def build(repo: Any, root: Path) -> tuple[dict[str, Stage], dict[str, Any]]:
    """Our stages and DVC's objects for them, both by name and in topological order."""
    tracked = {_name(item): item for item in repo.index.stages if not item.is_data_source}
    names = {item: name for name, item in tracked.items()}
    edges = repo.index.graph
    upstream = {name: {names[up] for up in edges[item] if up in names} for name, item in tracked.items()}
    order = list(ordered(upstream))
    return {name: _stage(name, tracked[name], upstream[name], root) for name in order}, {
        name: tracked[name] for name in order
    }


def ordered(upstream: Mapping[str, set[str]]) -> Iterator[str]:
    """Topological order; of the stages that could come next, always the one declared first."""
    declared = list(upstream)
    waiting = {name: set(needs) for name, needs in upstream.items()}
    ready = [index for index, name in enumerate(declared) if not waiting[name]]
    while ready:
        done = declared[heapq.heappop(ready)]
        yield done
        for index, name in enumerate(declared):
            if done in waiting[name]:
                waiting[name].remove(done)
                if not waiting[name]:
                    heapq.heappush(ready, index)


def _name(tracked: Any) -> str:
    """As in dvc.yaml; with the file in front when that isn't the one at the root."""
    return str(tracked.name if tracked.path_in_repo == "dvc.yaml" else f"{tracked.path_in_repo}:{tracked.name}")


def _stage(name: str, tracked: Any, upstream: set[str], root: Path) -> Stage:
    return Stage(
        name=name,
        command=command(tracked),
        deps=[relative(dep.fs_path, root) for dep in files_read(tracked)],
        outs=[relative(out.fs_path, root) for out in tracked.outs],
        params=[key for dep in tracked.params for key in dep.params],
        upstream=upstream,
    )


def command(tracked: Any) -> str:
    """The stage's command; several stand on lines of their own."""
    return tracked.cmd if isinstance(tracked.cmd, str) else "\n".join(tracked.cmd)


def files_read(tracked: Any) -> list[Any]:
    """The dependencies of a stage that are files or folders, not parameters."""
    parameters = tracked.params
    return [dep for dep in tracked.deps if dep not in parameters]


def inputs(tracked: Any, produced: list[str], root: Path) -> dict[str, Any]:
    """What decides the stage's results and no stage writes: command, parameter values, hashes of code and data.

    ``produced`` are the absolute paths of all stages' outputs. A missing file counts as None.
    """
    sources = [
        dep
        for dep in files_read(tracked)
        if not any(inside(dep.fs_path, out) or inside(out, dep.fs_path) for out in produced)
    ]
    return {
        "command": command(tracked),
        "params": {relative(dep.fs_path, root).as_posix(): dep.read_params() for dep in tracked.params},
        "deps": {
            relative(dep.fs_path, root).as_posix(): dep.get_hash().value if dep.exists else None for dep in sources
        },
    }


def relative(path: str, root: Path) -> Path:
    """``path`` relative to ``root`` where it is inside it."""
    found = Path(path)
    return found.relative_to(root) if found.is_relative_to(root) else found


def inside(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or in it; both are absolute and as short as can be."""
    return path == folder or path.startswith(f"{folder}{os.sep}")
