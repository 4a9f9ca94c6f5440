"""A stage's fingerprint: all that decides its result, in parts and as one digest; the same before a run and inside it.

The launcher and the flow compute it, no stage does, so it is in nobody's code dependencies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from components.component import PACKAGE, Component, code_closure, resolve
from components.params.project import Params
from components.runtime import RUNTIME_FILE
from components.validate.models import digests

Parts = dict[str, Any]
"""``component``, its name; ``code``, ``inputs``: path -> sha256; ``parameters``: key -> value; ``runtime``.
``inputs`` has the folders of data.models too."""


def parts(component: Component, params: Params, root: Path | None = None) -> Parts | None:
    """What the result of ``component`` is made from; None if an input or the code is missing or can't be read.

    Args:
        params: the parameters.
        root: the checkout, whose code counts; None takes the current folder and the code that runs.
    """
    package = PACKAGE if root is None else root / PACKAGE.name
    root, code = root or Path(), code_closure(component.module, package)
    if not code:
        return None
    try:
        return {
            "component": component.name,
            "code": {path.relative_to(package.parent).as_posix(): file_digest(path) for path in code},
            "parameters": {key: to_jsonable_python(params.get(key)) for key in sorted(component.parameters.values())},
            "runtime": json.loads((root / RUNTIME_FILE).read_text(encoding="utf-8")),
            "inputs": {
                path: _content(root / path)
                for path in sorted(resolve(path, params) for path in component.inputs.values())
            }
            | _model_contents(component, params, root),
        }
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def model_folders(component: Component, params: Params) -> dict[str, str]:
    """The folders of data.models by name, for a component that reads them."""
    return dict(params.data.models) if "models" in component.parameters else {}


def digest(found: Parts) -> str:
    """The fingerprint: 32 letters and digits."""
    canonical = json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def other_code(one: Parts, other: Parts) -> list[str]:
    """The code files that differ, those that only one of them has among them; sorted."""
    return [name for name, _, _ in _differing(one["code"], other["code"])]


def other_inputs(one: Parts, other: Parts) -> list[str]:
    """Everything but code that differs, in words: ``distill.alpha: 0.9 -> 0.5``, ``artifacts/label changed``."""
    found = [
        f"{name}: {_show(old)} -> {_show(new)}"
        for role in ("parameters", "runtime")
        for name, old, new in _differing(one[role], other[role])
    ]
    return found + [f"{name} changed" for name, _, _ in _differing(one["inputs"], other["inputs"])]


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_contents(component: Component, params: Params, root: Path) -> dict[str, str]:
    """Folder -> digest, as the stage validate writes it down."""
    models = model_folders(component, params)
    if missing := [folder for folder in models.values() if not (root / folder).is_dir()]:
        raise FileNotFoundError(missing[0])
    return {models[name]: found for name, found in digests(models, root).items()}


def _content(path: Path) -> str:
    """sha256 of a file, or of a folder's names and contents."""
    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        raise FileNotFoundError(path)
    total = hashlib.sha256()
    for found in files_in(path):
        total.update(found.relative_to(path).as_posix().encode() + b"\0" + bytes.fromhex(file_digest(found)))
    return total.hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All files in a folder, DVC's links to its cache among them; sorted."""
    return sorted(Path(place) / name for place, _, names in os.walk(folder, followlinks=True) for name in names)


_ABSENT = object()


def _differing(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of all that differs, however deep."""
    for name in sorted({*one, *other}):
        old, new = one.get(name, _ABSENT), other.get(name, _ABSENT)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differing(old, new, f"{prefix}{name}.")
        elif old is _ABSENT or new is _ABSENT or old != new:
            yield f"{prefix}{name}", old, new


def _show(value: Any) -> str:
    return "(none)" if value is _ABSENT else "null" if value is None else str(value)
