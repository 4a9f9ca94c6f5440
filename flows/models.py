"""The models that a run compares: their names, the stages they come from, their folders, their content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from components.component import COMPONENTS
from flows.repo import lockfile

CONTROLS = "controls"
_OTHER_INPUTS = ("test", CONTROLS)


@dataclass(frozen=True)
class Model:
    """An evaluated model: its name in every table, the stage it comes from, and where in that stage's output."""

    name: str
    stage: str
    place: str = "."

    @property
    def output(self) -> Path:
        """The folder with all that training left of the model, relative to the workspace."""
        return Path("artifacts") / self.stage / self.place

    @property
    def folder(self) -> Path:
        """The transformers folder, relative to the workspace."""
        return self.output / "model"

    @property
    def history(self) -> Path:
        """The training history, relative to the workspace."""
        return self.output / "history.jsonl"

    @property
    def phases(self) -> Path:
        """What each phase trained, relative to the workspace."""
        return self.output / "phases.json"


DIRECT = Model("lora_without_distillation", CONTROLS, "direct")
"""The fine-tune without distillation first, where parameters ask for it."""


def models() -> list[Model]:
    """The models that every run compares, as the inputs of ``evaluate`` name them: each a stage's whole output."""
    inputs = COMPONENTS["evaluate"].inputs
    return [Model(name, Path(path).name) for name, path in inputs.items() if name not in _OTHER_INPUTS]


def evaluated(root: Path) -> list[Model]:
    """The models that were compared in this workspace: DIRECT only where it was asked for."""
    return [*models(), *([DIRECT] if _direct_content(root) else [])]


def contents(root: Path) -> dict[str, str]:
    """The hash of each model, as dvc.lock has it for the stage that wrote it; models without one are left out.

    ``controls`` writes several, so DIRECT has the hash that ``controls`` tells: more seeds don't make another of it.
    """
    entries = lockfile.entries(root / "dvc.lock")
    found = {model.name: lockfile.output_hash(entries, f"artifacts/{model.stage}") for model in models()}
    found[DIRECT.name] = _direct_content(root)
    return {name: content for name, content in found.items() if content}


def _direct_content(root: Path) -> str | None:
    """The hash of the direct fine-tune; None where there is none."""
    try:
        told = json.loads((root / "artifacts" / CONTROLS / "controls.json").read_text(encoding="utf-8"))
        content: str | None = told["direct"]
    except (OSError, ValueError, KeyError):  # not made, or half a checkout: DVC puts that right
        return None
    return content
