"""What a pipeline run has to tell MLflow, as plain data; imports nothing heavy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task
from components.params.data import CUT, Windows
from flows.tracking.headline import headline_of, leading, task_of

_BESIDE = ("ece", "agreement_with_teacher")
_SIZE = ("parameters", "megabytes")
_SPEED = ("latency_p50_ms", "latency_p95_ms", "throughput_per_s")
CANDIDATES = ("lora_int8", "lora_onnx", "lora")
"""The models that may be registered: of those that were made, the first."""
FLOAT_TOLERANCE = 1e-4  # the padding of a batch moves float32 logits by some 1e-6
INT8_TOLERANCE = 0.02  # such a move may round an activation to the integer beside
TITLES = {
    "teacher": "teacher",
    "student_without_distillation": "student without distillation",
    "student": "student",
    "lora_without_distillation": "LoRA without distillation",
    "lora": "LoRA student",
    "lora_onnx": "LoRA student, ONNX",
    "lora_int8": "LoRA student, int8",
}
"""Names for people, in the order in which the models are shown."""
_OF_A_PHASE = ("trainable_parameters", "parameters", "rows", "objective")


@dataclass(frozen=True)
class ModelRecord:
    """One model: where it is, what it was made from, how it did.

    ``content`` is the hash of ``folder`` (a transformers folder) and the model's identity;
    ``version`` the component's; ``metrics`` come from :func:`model_metrics`;
    ``history`` is the training curve (JSON lines), None for a model that was not trained here;
    ``predictions`` holds the logits of the test rows, for the check after logging: loaded back, the model must give
    them to within ``tolerance``;
    ``reference`` says where a model can be had that isn't copied into MLflow, None for one that is.
    ``title`` is a name for people other than the usual one.
    """

    name: str
    stage: str
    folder: Path
    content: str
    version: str
    metrics: Mapping[str, float]
    predictions: Path
    params: Mapping[str, str | float | int] = field(default_factory=dict)
    history: Path | None = None
    tolerance: float = FLOAT_TOLERANCE
    reference: Mapping[str, str] | None = None
    title: str = ""

    @property
    def shown(self) -> str:
        """The name for people: ``title``, or the usual one."""
        return self.title or TITLES.get(self.name, self.name)


@dataclass(frozen=True)
class PipelineRecord:
    """One pipeline run: everything that ``publish`` writes.

    ``name`` is for people. ``inputs_digest`` is known before the stages run and ``lock_digest`` after them;
    the second identifies the run. ``versions`` maps each stage to its component's version.
    ``files`` maps a path among the run's artifacts to the file or folder to put there.
    ``texts`` is the folder of the test rows (columns row, text); ``comparison`` is Markdown.
    ``gains`` come from :func:`gain_metrics`. ``task`` is the name of what the models do;
    rows of more than ``max_length`` tokens are read in ``windows``.
    """

    name: str
    inputs_digest: str
    lock_digest: str
    git_commit: str
    data_hash: str
    rows: int
    max_length: int
    params: Mapping[str, str | float | int]
    versions: Mapping[str, str]
    models: list[ModelRecord]
    texts: Path
    comparison: str
    gains: Mapping[str, float] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)
    files: Mapping[str, Path] = field(default_factory=dict)
    registered_model: str = "stillhouse"
    candidates: Sequence[str] = CANDIDATES
    task: str = DEFAULT
    windows: Windows = CUT

    @property
    def artifacts(self) -> dict[str, Path]:
        """Figures and files by their path among the parent run's artifacts; those that are missing are left out."""
        named = {f"figures/{path.name}": path for path in self.figures} | dict(self.files)
        return {place: path for place, path in named.items() if path.exists()}


def model_metrics(metrics: Mapping[str, Any], benchmark: Mapping[str, Any] | None, name: str) -> dict[str, float]:
    """The metrics of one model under the names that every model shares.

    Beside the task's own there are an interval's ends as ``KEY_ci_low`` and ``KEY_ci_high``, a group's as
    ``KEY_GROUP``, and those by type as ``details.TYPE.KEY``.

    Args:
        metrics: ``artifacts/evaluate/metrics.json``, parsed.
        benchmark: ``reports/benchmark.json``, parsed; None if nothing was measured.
        name: the model.
    """
    found, task = metrics["models"][name], task_of(metrics)
    speed = (benchmark or {}).get("models", {}).get(name, {})
    quality = [metric.key for metric in task.metrics]
    values = {key: found.get(key) for key in (*quality, *_BESIDE, *_SIZE)} | {key: speed.get(key) for key in _SPEED}
    for key in quality:
        values[f"{key}_ci_low"], values[f"{key}_ci_high"] = found.get(f"{key}_ci") or (None, None)
    for group, scores in found.get("groups", {}).items():
        values |= {f"{metric.key}_{metric_name(group)}": scores.get(metric.key) for metric in leading(task)}
    for kind, scores in (found.get("details") or {}).items():
        values |= {f"details.{metric_name(kind)}.{key}": value for key, value in scores.items()}
    return {key: float(value) for key, value in values.items() if value is not None}


def gain_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What distillation and the fine-tune gained, as metrics of the parent run.

    ``gain_NAME`` with ``_low`` and ``_high``, on all test rows and, as ``gain_NAME_target``, on the target group;
    and ``seeds``, how many the gains are means over.

    Args:
        metrics: ``artifacts/evaluate/metrics.json``, parsed.
    """
    values: dict[str, float] = {}
    headline = headline_of(metrics).key
    for name, gain in metrics["gains"].items():
        for key, found in ((f"gain_{name}", gain), (f"gain_{name}_target", gain.get("target"))):
            if found:
                values |= {key: found[headline], f"{key}_low": found["ci"][0], f"{key}_high": found["ci"][1]}
        values["seeds"] = float(gain["seeds"])
    return values


def figures(metrics: Mapping[str, float], task: Task = TASKS[DEFAULT]) -> str:
    """Quality, size and latency in a few words, of metrics from :func:`model_metrics`."""
    words = {metric.key: f"{{:{'.1%' if metric.percent else '.3f'}}} {metric.name}" for metric in leading(task)} | {
        "megabytes": "{:.1f} MB",
        "latency_p50_ms": "{:.1f} ms a text",
    }
    return ", ".join(told.format(metrics[name]) for name, told in words.items() if name in metrics)


def ordered(models: Sequence[ModelRecord]) -> list[ModelRecord]:
    """Teacher, control, student, LoRA, exported; unknown ones last."""
    places = {name: place for place, name in enumerate(TITLES)}
    return sorted(models, key=lambda model: places.get(model.name, len(places)))


def phase_params(phases: Path) -> dict[str, str | float | int]:
    """What each phase trained, as parameters ``phase.NAME.KEY``; none for a model that was taken as it was.

    Args:
        phases: the stage's ``phases.json``, a list of phases with ``name``.
    """
    told = json.loads(phases.read_text(encoding="utf-8")) if phases.exists() else []
    return {f"phase.{phase['name']}.{key}": phase[key] for phase in told for key in _OF_A_PHASE if key in phase}


def metric_name(text: str) -> str:
    """``text`` as a name of a metric or parameter: characters that MLflow forbids become hexadecimal code points."""
    return re.sub(r"[^\w.\- ]", lambda match: f"_{ord(match[0]):x}_", text)
