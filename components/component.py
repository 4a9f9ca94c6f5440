"""The component contract: a named, versioned, pure function from files and parameters to one folder."""

from __future__ import annotations

import ast
import hashlib
import importlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.params.project import Params

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Component:
    """What a stage takes and gives.

    ``entry`` is ``module:function``, imported only when it runs. The function is called with
    one keyword argument for each input (a path), for each parameter (its value in params.yaml),
    for each store (a folder that may be deleted at any time: that changes how long the stage takes,
    never its result) and for ``output`` (the folder to fill). One that ``resumes`` also takes ``checkpoints`` (a
    store of its own, or None) and ``checkpoint_every`` (optimiser steps).
    """

    name: str
    version: str
    entry: str
    inputs: Mapping[str, str]
    parameters: Mapping[str, str]
    stores: Mapping[str, str] = field(default_factory=dict)
    resumes: bool = False

    @property
    def output(self) -> Path:
        """The folder that holds everything the stage writes."""
        return Path("artifacts") / self.name

    @property
    def module(self) -> str:
        """The module that ``entry`` names."""
        return self.entry.split(":")[0]

    def function(self) -> Callable[..., None]:
        """Import and return the function."""
        module, name = self.entry.split(":")
        loaded: Callable[..., None] = getattr(importlib.import_module(module), name)
        return loaded

    def arguments(self, params: Params, checkpoints: Path | None = None) -> dict[str, Any]:
        """The keyword arguments of the function, but for ``output``."""
        paths = {role: Path(resolve(path, params)) for role, path in self.inputs.items()}
        values = {role: params.get(key) for role, key in self.parameters.items()}
        stores: dict[str, Any] = {role: Path(folder) for role, folder in self.stores.items()}
        if self.resumes:
            stores |= {"checkpoints": checkpoints, "checkpoint_every": params.checkpoints.every}
        return paths | values | stores

    def full_version(self) -> str:
        """The declared version and a short hash of the code that the component can reach."""
        digest = hashlib.sha256()
        for path in code_closure(self.module):
            digest.update(path.relative_to(PACKAGE.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return f"{self.version}+{digest.hexdigest()[:7]}"

    def run(self, params: Params, checkpoints: Path | None = None, check: Callable[[], object] = lambda: None) -> None:
        """Compute the output beside its place, then put it there in one rename.

        What is in the folder ``checkpoints`` must come from the same fingerprint; None keeps no checkpoints.
        ``check`` is called before the old output is replaced, and raises if it must stay.
        A run that fails leaves a ``.partial`` folder at most, which the next run removes.
        """
        partial = partial_folder(self.output)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self.function()(**self.arguments(params, checkpoints), output=partial)
        check()
        shutil.rmtree(self.output, ignore_errors=True)
        partial.rename(self.output)


def partial_folder(output: Path) -> Path:
    """Where a stage writes until it is done."""
    return output.with_name(output.name + ".partial")


def resolve(path: str, params: Params) -> str:
    """Fill in a parameter that names a path: ``${teacher.base}``."""
    if path.startswith("${") and path.endswith("}"):
        return str(params.get(path[2:-1]))
    return path


def code_closure(module: str, package: Path | None = None) -> list[Path]:
    """Every file of ``components/`` that ``module`` imports, directly or not, itself included; sorted.

    Lazy imports inside functions count. The launcher (``__main__``, this module and those that only they import)
    is left out: it carries values and paths, which dvc.yaml tracks, and computes nothing.

    Args:
        package: another checkout's folder ``components``; None is the one of this module.
    """
    package = package or PACKAGE
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _file(waiting.pop(), package)
        if path and path not in found:
            found.add(path)
            waiting += _imports(path)
    return sorted(found)


def _file(module: str, package: Path) -> Path | None:
    """The file of a module of the package; None for anything else."""
    parts = module.split(".")
    if parts[0] != package.name:
        return None
    base = package.joinpath(*parts[1:])
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file() and path.stat().st_size), None)


def _imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


_VALIDATED = "artifacts/validate"
_ROWS = {name: f"{_VALIDATED}/{name}" for name in ("train", "unlabelled", "validation", "tasks")}
_MODELS = {"folders": f"{_VALIDATED}/folders.json"}  # what the folders of data.models hold
_TEACHER = {"teacher_logits": "artifacts/label", "teacher": "artifacts/teacher/model"}
_READING = {"max_length": "data.max_length", "windows": "data.windows"}
_COMMON = {"seed": "seed", "runtime": "runtime"} | _READING

COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component(
            "validate",
            "1.1.0",
            "components.validate.stage:run",
            inputs={"data_folder": "data", "base_model": "${teacher.base}"},
            parameters={"data": "data", "settings": "validate"},
        ),
        Component(
            "teacher",
            "1.1.0",
            "components.teacher:run",
            inputs=_ROWS | {"schema": f"{_VALIDATED}/schema.json", "base_model": "${teacher.base}"},
            parameters=_COMMON | {"settings": "teacher"},
            resumes=True,
        ),
        Component(
            "label",
            "1.1.0",
            "components.label:run",
            inputs={
                "train": f"{_VALIDATED}/train",
                "unlabelled": f"{_VALIDATED}/unlabelled",
                "validation": f"{_VALIDATED}/validation",
                "judgements": f"{_VALIDATED}/judgements",
                "teacher": "artifacts/teacher/model",
            }
            | _MODELS,
            parameters={
                "runtime": "runtime",
                **_READING,
                "models": "data.models",
                "settings": "label",
            },
            stores={"logit_store": ".stillhouse/logits"},
        ),
        Component(
            "distill",
            "1.1.0",
            "components.distill:run",
            inputs=_ROWS | _TEACHER | _MODELS,
            parameters=_COMMON | {"models": "data.models", "settings": "distill"},
            resumes=True,
        ),
        Component(
            "control",
            "1.1.0",
            "components.control:run",
            inputs=_ROWS | {"teacher": "artifacts/teacher/model"} | _MODELS,
            parameters=_COMMON
            | {
                "models": "data.models",
                "student": "distill.student",
                "order": "distill.order",
                "phases": "distill.phases",
            },
            resumes=True,
        ),
        Component(
            "finetune",
            "1.1.0",
            "components.finetune:run",
            inputs=_ROWS | _TEACHER | {"student": "artifacts/distill/model"},
            parameters=_COMMON | {"settings": "finetune"},
            resumes=True,
        ),
        Component(
            "controls",
            "1.0.0",
            "components.controls:run",
            inputs=_ROWS | _TEACHER | _MODELS | {"student_without_distillation": "artifacts/control/model"},
            parameters=_COMMON
            | {"models": "data.models", "distill": "distill", "finetune": "finetune", "settings": "controls"},
            resumes=True,
        ),
        Component(
            "export",
            "1.0.0",
            "components.export.stage:run",
            inputs={
                "train": f"{_VALIDATED}/train",
                "validation": f"{_VALIDATED}/validation",
                "test": f"{_VALIDATED}/test",
                "lora": "artifacts/finetune/model",
            },
            parameters={"runtime": "runtime", **_READING, "settings": "export"},
        ),
        Component(
            "evaluate",
            "1.2.0",
            "components.evaluate.stage:run",
            inputs={
                "test": f"{_VALIDATED}/test",
                "teacher": "artifacts/teacher",
                "student": "artifacts/distill",
                "student_without_distillation": "artifacts/control",
                "lora": "artifacts/finetune",
                "controls": "artifacts/controls",
                "export": "artifacts/export",
            },
            parameters={
                "runtime": "runtime",
                **_READING,
                "settings": "evaluate",
                "target_group": "finetune.group",
            },
        ),
    )
}
