"""What the report and the card tell, read from the files that a run leaves; what is missing there is None or empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.component import COMPONENTS
from components.ml.tasks.task import Metric, Task
from components.params.project import Params
from flows import compare
from flows.gating import report as decisions
from flows.models import evaluated
from flows.repo import timings
from flows.repo.revisions import REFS
from flows.repo.workspace import Workspace
from flows.reporting import reading
from flows.reporting.disagreements import Disagreement, confusion, disagreement
from flows.reporting.reading import EVALUATED
from flows.tracking.headline import has_right_rows, headline_of, task_of

PAIRS = (("teacher", "lora"), ("lora", "lora_int8"))
"""The models whose disagreements are shown: what the small one lost, and what integers changed."""


@dataclass(frozen=True)
class Origin:
    """Where the run is recorded: its MLflow run and where people see that, and the commit that made the results."""

    run: str | None = None
    url: str | None = None
    commit: str | None = None

    @property
    def ref(self) -> str | None:
        """The git ref that keeps the commit."""
        return f"{REFS}{self.run}" if self.run and self.commit else None


@dataclass(frozen=True)
class Stage:
    """What a stage cost: how this run came by its result, the seconds of its last whole run here, its output."""

    name: str
    version: str
    outcome: str | None
    seconds: float | None
    files: int | None
    size: int | None
    content: str | None
    phases: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Evidence:
    """All that is told, as plain data.

    Args:
        name: the run's, for people.
        comparison: the models side by side, as ``compare.comparison`` gives it.
        titles: the models' names for people.
        labels: the classes' names, in order.
        data_gate: the verdicts of the data gate.
        decision: the promotion gate's, where it is about these results.
        export: what the export tells of each format.
        benchmark: reports/benchmark.json, where it is about these models.
        histories: by model, the lines of its training.
        confusions: by model, rows by actual and predicted class; none where rows have no one class.
        reliability: by model, the bins of its calibration curve: confidence, accuracy, rows; likewise.
        disagreements: of the pairs of models that were asked for.
        stages: what each stage cost.
        origin: where the run is recorded.
        lineage: named hashes and versions.
        runtime: versions of what computes results.
        made: when this was gathered.
    """

    name: str
    params: Params
    comparison: dict[str, Any]
    titles: Mapping[str, str]
    labels: Sequence[str]
    data_gate: Mapping[str, Any] | None
    decision: Mapping[str, Any] | None
    export: Mapping[str, Any]
    benchmark: Mapping[str, Any] | None
    histories: Mapping[str, Sequence[Mapping[str, Any]]]
    confusions: Mapping[str, Sequence[Sequence[int]]]
    reliability: Mapping[str, Sequence[tuple[float, float, int]]]
    disagreements: Sequence[Disagreement]
    stages: Sequence[Stage]
    origin: Origin
    lineage: Mapping[str, str]
    runtime: Mapping[str, str]
    base_licence: str | None = None
    made: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))

    @property
    def models(self) -> Mapping[str, Any]:
        """The models' figures, by name."""
        models: Mapping[str, Any] = self.comparison["models"]
        return models

    @property
    def task(self) -> Task:
        """What the models do."""
        return task_of(self.comparison)

    @property
    def headline(self) -> Metric:
        """What the models are compared by."""
        return headline_of(self.comparison)

    @property
    def version(self) -> str | None:
        """The number under which the candidate is registered; None where it isn't."""
        return str(self.decision["challenger"]["version"]) if self.decision else None

    @property
    def released(self) -> str:
        """The model that is registered, or would be: the smallest form of the fine-tuned student."""
        return next(name for name in ("lora_int8", "lora_onnx", "lora", "student") if name in self.models)


def gather(
    workspace: Workspace, params: Params, name: str, origin: Origin, outcomes: Mapping[str, str] | None = None
) -> Evidence:
    """Read everything that there is.

    Args:
        workspace: holds the results.
        params: what they were made with.
        name: the run's, for people.
        origin: where the run is recorded.
        outcomes: by stage, how this run came by its result: ``ran``, ``restored`` or ``unchanged``.

    Raises:
        UserError: nothing is evaluated yet, or a file is damaged.
    """
    root = workspace.root
    comparison = compare.comparison(root)
    gate = reading.json_of(root / "artifacts/validate/gate.json")
    labels = _labels(gate, params, root)
    histories = {model.name: reading.lines_of(root / model.history) for model in evaluated(root)}
    decision = decisions.read(root)
    return Evidence(
        name=name,
        params=params,
        comparison=comparison,
        titles=compare.titles(comparison),
        labels=labels,
        data_gate=gate,
        decision=decision if decision and decision.get("lock") == workspace.lock_digest() else None,
        export=reading.json_of(root / "artifacts/export/export.json") or {},
        benchmark=reading.json_of(root / compare.BENCHMARK) if compare.measured(root) else None,
        histories={name: lines for name, lines in histories.items() if lines and name in comparison["models"]},
        confusions=dict(_confusions(root, comparison, len(labels))),
        reliability={name: bins for name in comparison["models"] if (bins := reading.bins(root, name))},
        disagreements=list(_disagreements(root, comparison)),
        stages=[_stage(workspace, stage, outcomes or {}) for stage in COMPONENTS],
        origin=origin,
        lineage={
            "data": workspace.data_hash() or "not pinned",
            "dvc.lock": workspace.lock_digest(),
            "checked out": workspace.git_commit() or "not in git",
        },
        runtime=reading.json_of(root / "runtime.json") or {},
        base_licence=reading.base_licence(root / params.teacher.base),
    )


def _labels(gate: Mapping[str, Any] | None, params: Params, root: Path) -> list[str]:
    told = gate or reading.json_of(root / "artifacts/validate/schema.json") or {}
    return [str(label) for label in told.get("labels") or params.data.labels or []]


def _disagreements(root: Path, comparison: Mapping[str, Any]) -> Iterator[Disagreement]:
    for pair in PAIRS if has_right_rows(task_of(comparison)) else ():
        if all(name in comparison["models"] for name in pair):
            found = disagreement(root / EVALUATED / "predictions", root / "artifacts/validate/test", pair)
            if found:
                yield found


def _confusions(root: Path, comparison: Mapping[str, Any], classes: int) -> Iterator[tuple[str, list[list[int]]]]:
    for name in comparison["models"] if task_of(comparison).classes_per_row else ():
        found = confusion(root / EVALUATED / "predictions" / f"{name}.parquet", classes)
        if found:
            yield name, found


def _stage(workspace: Workspace, name: str, outcomes: Mapping[str, str]) -> Stage:
    output = COMPONENTS[name].output
    outs = workspace.lock_entries().get(name, {}).get("outs") or [{}]
    entry = next((out for out in outs if out.get("path") == output.as_posix()), outs[0])
    return Stage(
        name=name,
        version=COMPONENTS[name].full_version(),
        outcome=outcomes.get(name),
        seconds=timings.last(workspace, name, "ran"),
        files=entry.get("nfiles"),
        size=entry.get("size"),
        content=entry.get("md5"),
        phases=reading.json_of(workspace.root / output / "phases.json") or [],
    )
