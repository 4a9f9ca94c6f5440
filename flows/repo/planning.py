"""What a run would do to each stage, and why; works on DVC's stage objects without importing DVC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flows.repo.graph import Stage, files_read, inside, relative

Action = Literal["run", "resume", "restore", "skip", "depends"]


@dataclass(frozen=True)
class PlannedStage:
    """``resume``: training goes on at ``step``. ``restore``: the outputs come from DVC's cache or remote.
    ``depends``: what happens here depends on the bytes that stages before it will write. ``seconds`` is what
    the action will take, by earlier runs; None when nothing is known."""

    name: str
    action: Action
    because: list[str] = field(default_factory=list)
    step: int | None = None
    seconds: float | None = None


@dataclass
class Planner:
    """Plans stages in topological order.

    ``tracked`` holds DVC's object for each stage, ``never_run`` the stages without a lock entry, and
    ``in_run_cache`` tells whether DVC has kept the outputs of a stage for the inputs it has now.
    """

    root: Path
    tracked: Mapping[str, Any]
    never_run: set[str]
    in_run_cache: Callable[[Any], bool]
    # Stages whose outputs may become other than dvc.lock says, and those that will be as it says once restored.
    unsettled: set[str] = field(default_factory=set)
    restored: set[str] = field(default_factory=set)

    def plan(self, stages: Sequence[Stage]) -> list[PlannedStage]:
        """One planned stage for each of ``stages``, in their order."""
        return [self._plan(stage) for stage in stages]

    def _plan(self, stage: Stage) -> PlannedStage:
        tracked = self.tracked[stage.name]
        waits = [] if tracked.frozen else [f"depends on {name}" for name in self.tracked if name in self._waits(stage)]
        own = list(self._own_changes(stage, tracked))
        lost = [reason for out in tracked.outs for reason in self._lost(out)]
        action: Action = "skip"
        if own:
            action = "restore" if not waits and self.in_run_cache(tracked) else "run"
        elif waits:
            action = "depends"
        elif lost:
            action = "restore" if tracked.outs_cached() else "run"
        if action != "skip":
            (self.restored if action == "restore" and not own else self.unsettled).add(stage.name)
        return PlannedStage(stage.name, action, own + waits or lost)

    def _waits(self, stage: Stage) -> set[str]:
        """The stages whose results this one can't be planned without."""
        waits = stage.upstream & self.unsettled
        for name in stage.upstream & self.restored:
            folders = [dep.fs_path for dep in files_read(self.tracked[stage.name])]
            outs = [out.fs_path for out in self.tracked[name].outs]
            # A folder that outputs are put into has no hash before they are there.
            if any(inside(out, folder) and out != folder for out in outs for folder in folders):
                waits.add(name)
        return waits

    def _own_changes(self, stage: Stage, tracked: Any) -> Iterator[str]:
        """Why the stage would run even if nothing before it changed."""
        if stage.name in self.never_run:
            yield "never run"
            return
        if tracked.changed_stage():
            yield "the command changed"
        if tracked.is_callback or tracked.always_changed:
            yield "always runs"
        if not tracked.frozen:
            for dep in tracked.params:
                yield from parameter_changes(dep)
            for dep in files_read(tracked):
                yield from self._changed_file(stage, dep)

    def _changed_file(self, stage: Stage, dep: Any) -> Iterator[str]:
        producers = [
            (name, out)
            for name in stage.upstream
            for out in self.tracked[name].outs
            if inside(dep.fs_path, out.fs_path) or inside(out.fs_path, dep.fs_path)
        ]
        if any(name in self.unsettled for name, _ in producers):
            return
        if any(name in self.restored for name, _ in producers):
            holding = [out for _, out in producers if inside(dep.fs_path, out.fs_path)]
            if holding and _future_hash(holding[0], dep.fs_path) != dep.hash_info:
                yield f"{self._name(dep)} changed"
            return
        for state in dep.status().values():
            new = state == "modified" and not dep.hash_info
            yield f"{self._name(dep)} {'is a new input' if new else _WORDS.get(state, state)}"

    def _lost(self, out: Any) -> Iterator[str]:
        for state in out.status().values():
            yield f"{self._name(out)} {_WORDS.get(state, state)}"

    def _name(self, item: Any) -> str:
        return relative(item.fs_path, self.root).as_posix()


_WORDS = {"modified": "changed", "deleted": "is missing", "not in cache": "is not in DVC's cache"}


def _future_hash(out: Any, path: str) -> Any:
    """The hash that ``path``, in or at the output ``out``, will have once ``out`` is restored; None if unknown."""
    if out.fs_path == path:
        return out.hash_info
    folder = out.get_obj()
    found = folder.get_obj(out.cache, out.fs.relparts(path, out.fs_path)) if folder else None
    return found.hash_info if found else None


def parameter_changes(dep: Any) -> Iterator[str]:
    """``key: old -> new`` for every value, however deep, that differs from what dvc.lock recorded."""
    recorded, found = dep.hash_info.value or {}, dep.read_params()
    for key in dep.params or sorted({*recorded, *found}):
        yield from _differences(key, recorded.get(key, _ABSENT), found.get(key, _ABSENT))


_ABSENT = object()


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _differences(f"{key}.{name}", old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif old is _ABSENT or new is _ABSENT or old != new:
        yield f"{key}: {_show(old)} -> {_show(new)}"


def _show(value: Any) -> str:
    return "(none)" if value is _ABSENT else "null" if value is None else str(value)
