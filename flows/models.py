"""The models that a run compares: their names, the stages they come from, their folders, their content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.component import COMPONENTS
from flows import lockfile


@dataclass(frozen=True)
class Model:
    """An evaluated model: its name in every table and the stage it comes from."""

    name: str
    stage: str

    @property
    def folder(self) -> Path:
        """The transformers folder, relative to the workspace."""
        return Path("artifacts") / self.stage / "model"

    @property
    def history(self) -> Path:
        """The training history, relative to the workspace."""
        return Path("artifacts") / self.stage / "history.jsonl"


def models() -> list[Model]:
    """The models that ``evaluate`` compares, as its inputs name them."""
    inputs = COMPONENTS["evaluate"].inputs
    return [Model(name, Path(path).name) for name, path in inputs.items() if name != "test"]


def contents(root: Path) -> dict[str, str]:
    """The hash of each model, as dvc.lock has it for the stage that wrote it; models without one are left out."""
    entries = lockfile.entries(root / "dvc.lock")
    found = {model.name: lockfile.output_hash(entries, f"artifacts/{model.stage}") for model in models()}
    return {name: content for name, content in found.items() if content}
