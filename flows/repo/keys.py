"""What decides a stage's result, as one word: equal words in two worktrees, equal results."""

from __future__ import annotations

from flows.repo import graph, lockfile
from flows.repo.workspace import Workspace


def foreseen(workspace: Workspace) -> dict[str, str]:
    """For each stage the digest of its own inputs and, in turn, of those of the stages before it; known before a run.

    Stages with different digests may still turn out to do the same: when those before them write equal bytes.
    """
    with workspace.repo() as repo:
        stages, tracked = graph.build(repo, workspace.root)
        outs = [out.fs_path for item in tracked.values() for out in item.outs]
        keys: dict[str, str] = {}
        for name, stage in stages.items():
            own = graph.inputs(tracked[name], outs, workspace.root)
            written = [path.as_posix() for path in stage.outs]
            keys[name] = lockfile.digest([own, written, sorted(keys[before] for before in stage.upstream)])
        return keys


def present(workspace: Workspace, stage: str) -> str | None:
    """The key of DVC's run-cache for the inputs that lie there now; None where DVC keeps no results of the stage.

    The stages before it must be up to date.
    """
    with workspace.repo() as repo:
        from dvc.stage.cache import _can_hash, _get_stage_hash

        tracked = graph.build(repo, workspace.root)[1][stage]
        if not all(dep.exists for dep in tracked.deps):
            return None
        tracked.save_deps()
        return str(_get_stage_hash(tracked)) if _can_hash(tracked) else None
