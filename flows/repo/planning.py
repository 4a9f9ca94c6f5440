"""What a run would do to each stage, and why; works on DVC's stage objects without importing DVC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.errors import UserError
from flows.repo.graph import Stage, files_read, inside, relative
from flows.repo.kept import Kept
from flows.repo.reasons import input_changes, output_losses, parameter_changes

if TYPE_CHECKING:
    from flows.repo.checkpoints import Checkpoint

Action = Literal["run", "resume", "restore", "skip", "depends"]


@dataclass(frozen=True)
class PlannedStage:
    """``resume``: training goes on at ``step``. ``restore``: the outputs come from DVC's cache or remote.
    ``depends``: what happens here depends on the bytes that stages before it will write. ``seconds`` is what
    the action will take by earlier runs, for ``depends`` at most; None when nothing is known or done."""

    name: str
    action: Action
    because: list[str] = field(default_factory=list)
    step: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class History:
    """What earlier runs have left: the checkpoint of a stage, how long an action takes when only a share of it is
    left to do, and the edited files across which results are kept."""

    resumable: Callable[[str], Checkpoint | None]
    estimate: Callable[[str, str, float], float | None]
    accepted: Mapping[str, Sequence[str]]


@dataclass
class Planner:
    """Plans the chosen stages of a graph; the others stay as they are.

    ``tracked`` holds DVC's object for each stage, ``never_run`` the stages without a lock entry.
    """

    root: Path
    tracked: Mapping[str, Any]
    never_run: Set[str]
    chosen: Set[str]
    kept: Kept
    history: History
    # Stages whose outputs may become other than dvc.lock says, and those that will be as it says once restored.
    unsettled: set[str] = field(default_factory=set)
    restored: set[str] = field(default_factory=set)
    # What is out of date and stays so, for each stage that isn't chosen.
    left: dict[str, list[str]] = field(default_factory=dict)

    def plan(self, stages: Sequence[Stage]) -> list[PlannedStage]:
        """One planned stage for each chosen one of ``stages``, which come in topological order, all of them.

        Raises:
            UserError: a chosen stage reads what one that isn't chosen would have to write first.
        """
        found = []
        for stage in stages:
            if stage.name in self.chosen:
                found.append(self._plan(stage))
            else:
                self.left[stage.name] = self._left(stage)
        return found

    def _plan(self, stage: Stage) -> PlannedStage:
        self._check_inputs(stage)
        waits, own = self._waits(stage), list(self._own_changes(stage))
        action: Action = "skip"
        if own or waits:
            action, because = self._changed(stage, own, waits)
        elif lost := self._lost(stage):
            action, because = self._again(stage, lost)
        else:
            because = _across(self.history.accepted.get(stage.name, ()))
        planned = PlannedStage(stage.name, action, [*because, *self._notes(stage)])
        return planned if action == "skip" else self._with_history(planned, resumable=action == "run" and not waits)

    def _changed(self, stage: Stage, own: list[str], waits: list[str]) -> tuple[Action, list[str]]:
        """The plan for a stage whose inputs are other than dvc.lock recorded, or may become so."""
        self.unsettled.add(stage.name)
        if not own:
            return "depends", waits
        place = None if waits else self.kept.for_inputs(self.tracked[stage.name], self._coming(stage))
        if place is not None:
            return "restore", [*own, *place]
        return "run", [*self.kept.complaints(), *own, *waits]

    def _again(self, stage: Stage, lost: list[str]) -> tuple[Action, list[str]]:
        """The plan for a stage whose inputs are as recorded, but whose outputs aren't."""
        place = self.kept.recorded(self.tracked[stage.name])
        if place is None:
            self.unsettled.add(stage.name)
            return "run", [*self.kept.complaints(), *lost]
        self.restored.add(stage.name)
        return "restore", place or lost

    def _with_history(self, planned: PlannedStage, *, resumable: bool) -> PlannedStage:
        """With the checkpoint at which it goes on, if any, and the time it will take."""
        name = planned.name
        checkpoint = self.history.resumable(name) if resumable else None
        if checkpoint is None:
            return replace(planned, seconds=self.history.estimate(name, planned.action, 1.0))
        told = [f"goes on at step {checkpoint.step} of {checkpoint.total}", *_across(checkpoint.accepted)]
        left = 1 - checkpoint.step / max(checkpoint.total, 1)
        seconds = self.history.estimate(name, "resume", left)
        return PlannedStage(name, "resume", [*told, *planned.because], checkpoint.step, seconds)

    def _waits(self, stage: Stage) -> list[str]:
        """The stages whose results this one can't be planned without."""
        tracked = self.tracked[stage.name]
        if tracked.frozen:
            return []
        waits = stage.upstream & self.unsettled
        for name in stage.upstream & self.restored:
            folders = [dep.fs_path for dep in files_read(tracked)]
            outs = [out.fs_path for out in self.tracked[name].outs]
            # A folder that outputs are put into has no hash before they are there.
            if any(inside(out, folder) and out != folder for out in outs for folder in folders):
                waits.add(name)
        return [f"depends on {name}" for name in self.tracked if name in waits]

    def _own_changes(self, stage: Stage) -> Iterator[str]:
        """Why the stage would run even if nothing before it changed."""
        tracked = self.tracked[stage.name]
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
                yield from self._input_changes(stage, dep)

    def _input_changes(self, stage: Stage, dep: Any) -> Iterator[str]:
        producers = self._producers(stage, dep)
        if self.unsettled & set(producers):
            return
        if not self.restored & set(producers):
            yield from input_changes(dep, self.root)
        elif self._future_hash(producers, dep) not in (None, dep.hash_info):
            yield f"{relative(dep.fs_path, self.root).as_posix()} changed"

    def _producers(self, stage: Stage, dep: Any) -> dict[str, Any]:
        """The outputs that are, hold, or are in what the stage reads there, by the stage that writes them."""
        return {
            name: out
            for name in stage.upstream
            for out in self.tracked[name].outs
            if inside(dep.fs_path, out.fs_path) or inside(out.fs_path, dep.fs_path)
        }

    def _future_hash(self, producers: Mapping[str, Any], dep: Any) -> Any:
        """The hash that what is read there will have when it is restored; None for a folder that outputs are put into.

        ``False`` when DVC's cache and remote can't tell: that is another hash than any.
        """
        holding = [out for name, out in producers.items() if name in self.restored and inside(dep.fs_path, out.fs_path)]
        if not holding:
            return None
        out = holding[0]
        if out.fs_path == dep.fs_path:
            return out.hash_info
        folder = out.get_obj()
        found = folder.get_obj(out.cache, out.fs.relparts(dep.fs_path, out.fs_path)) if folder else None
        return found.hash_info if found else False

    def _coming(self, stage: Stage) -> set[str]:
        """The inputs that will be as dvc.lock recorded them once the stages before this one are restored."""
        deps = files_read(self.tracked[stage.name])
        return {
            dep.fs_path
            for dep in deps
            if dep.hash_info and self._future_hash(self._producers(stage, dep), dep) == dep.hash_info
        }

    def _lost(self, stage: Stage) -> list[str]:
        return [reason for out in self.tracked[stage.name].outs for reason in output_losses(out, self.root)]

    def _left(self, stage: Stage) -> list[str]:
        """That the stage, which isn't chosen, or one before it is out of date, and stays so."""
        reasons = list(self._own_changes(stage)) or self._lost(stage)
        reasons = reasons or [f"it {wait}" for wait in self._waits(stage)]
        mine = [f"{stage.name} is left as it is, though {', '.join(reasons)}"] if reasons else []
        return [*self._notes(stage), *mine]

    def _notes(self, stage: Stage) -> list[str]:
        """What the stage builds on though it is out of date, as it isn't chosen."""
        upstream = [] if self.tracked[stage.name].frozen else [name for name in self.left if name in stage.upstream]
        return list(dict.fromkeys(note for name in upstream for note in self.left[name]))

    def _check_inputs(self, stage: Stage) -> None:
        tracked = self.tracked[stage.name]
        for dep in [] if tracked.frozen else files_read(tracked):
            for name in self._producers(stage, dep):
                if name not in self.chosen and not dep.exists:
                    raise UserError(
                        f"{stage.name} reads {relative(dep.fs_path, self.root).as_posix()}, which is missing, and the "
                        f"stage {name}, which writes it, isn't among the chosen ones.",
                        f"Choose it too: `--from {name}`.",
                        "pipeline",
                    )


def _across(files: Sequence[str]) -> list[str]:
    """That the user vouched for edits."""
    return [f"accepted across edits of {', '.join(files)}"] if files else []
