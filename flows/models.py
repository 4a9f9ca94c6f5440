"""The models that a run compares: their names, the stages they come from, their folders, their content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.component import COMPONENTS
from flows.repo import lockfile
from flows.repo.revisions import REFS

CONTROLS = "controls"
EXPORT = "export"
_OTHER_INPUTS = ("test", CONTROLS, EXPORT)


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
    def quantised(self) -> bool:
        """Whether its weights may be integers."""
        return self.place == "int8"

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
EXPORTED = (Model("lora_onnx", EXPORT, "onnx"), Model("lora_int8", EXPORT, "int8"))
"""The fine-tuned student as files, in the formats that parameters ask for."""


def models() -> list[Model]:
    """The models that every run compares, as the inputs of ``evaluate`` name them: each a stage's whole output."""
    inputs = COMPONENTS["evaluate"].inputs
    return [Model(name, Path(path).name) for name, path in inputs.items() if name not in _OTHER_INPUTS]


def evaluated(root: Path) -> list[Model]:
    """The models that were compared in this workspace: DIRECT and EXPORTED only where they were asked for."""
    told = _told_of_export(root)
    exported = [model for model in EXPORTED if model.place in told]
    return [*models(), *([DIRECT] if _direct_content(root) else []), *exported]


def contents(root: Path) -> dict[str, str]:
    """The hash of each model, as dvc.lock has it for the stage that wrote it; models without one are left out.

    ``controls`` and ``export`` write several, so DIRECT and EXPORTED have the hashes that these stages tell: more
    seeds don't make another of DIRECT, and one more format none of the others.
    """
    entries = lockfile.entries(root / "dvc.lock")
    found = {model.name: lockfile.output_hash(entries, f"artifacts/{model.stage}") for model in models()}
    found[DIRECT.name] = _direct_content(root)
    told = _told_of_export(root)
    found |= {model.name: told[model.place]["content"] for model in EXPORTED if model.place in told}
    return {name: content for name, content in found.items() if content}


def megabytes(folder: Path) -> float:
    """The size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def reference(root: Path, model: Model, remote: str) -> dict[str, str]:
    """Where a model can be had that isn't copied into MLflow, for its tags there.

    Args:
        root: the workspace.
        model: the model.
        remote: the DVC remote's name and address, without credentials.
    """
    output, place = f"artifacts/{model.stage}", model.folder.as_posix()
    return {
        "stillhouse.dvc.hash": lockfile.output_hash(lockfile.entries(root / "dvc.lock"), output) or "none",
        "stillhouse.dvc.output": output,
        "stillhouse.dvc.path": place,
        "stillhouse.dvc.remote": remote or "none",
        "stillhouse.dvc.megabytes": f"{megabytes(root / model.folder):.1f}",
        # COMMIT is the tag stillhouse.commit of the parent run, which is set after the publication. Other clones lack
        # the commit until they fetch it; the project itself may have no origin, and needs none.
        "stillhouse.dvc.fetch": f"git fetch origin '{REFS}*:{REFS}*'; dvc get . {place} --rev COMMIT --out FOLDER",
    }


def _direct_content(root: Path) -> str | None:
    """The hash of the direct fine-tune; None where there is none."""
    content: str | None = _told(root / "artifacts" / CONTROLS / "controls.json").get("direct")
    return content


def _told_of_export(root: Path) -> dict[str, Any]:
    """What ``export`` tells of each format that it wrote."""
    return _told(root / "artifacts" / EXPORT / "export.json")


def _told(path: Path) -> dict[str, Any]:
    """A stage's own file; nothing where it isn't made, or in half a checkout: DVC puts that right."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
