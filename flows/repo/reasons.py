"""What differs between a stage's inputs and outputs and what dvc.lock recorded of them, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.repo.graph import relative
from flows.repo.kept import changed_files

FILES_NAMED = 3
_WORDS = {"modified": "changed", "deleted": "is missing", "not in cache": "is not in DVC's cache"}
_ABSENT = object()


def parameter_changes(dep: Any) -> Iterator[str]:
    """``key: old -> new`` for every value, however deep, that differs from what dvc.lock recorded."""
    recorded, found = dep.hash_info.value or {}, dep.read_params()
    for key in dep.params or sorted({*recorded, *found}):
        yield from _differences(key, recorded.get(key, _ABSENT), found.get(key, _ABSENT))


def input_changes(dep: Any, root: Path) -> Iterator[str]:
    """How a file or folder that a stage reads differs; of a folder the files, where DVC's cache has its old list."""
    name = relative(dep.fs_path, root).as_posix()
    for state in dep.status().values():
        if state == "modified" and not dep.hash_info:
            yield f"{name} is a new input"
            continue
        files = _files(dep, name) if state == "modified" else []
        yield from files or [f"{name} {_WORDS.get(state, state)}"]


def output_losses(out: Any, root: Path) -> Iterator[str]:
    """How what a stage wrote isn't as it left it."""
    for state in out.status().values():
        yield f"{relative(out.fs_path, root).as_posix()} {_WORDS.get(state, state)}"


def show(value: Any) -> str:
    """A parameter's value as YAML and JSON write it; text without quotes."""
    return value if isinstance(value, str) else _exactly(value)


def _files(dep: Any, name: str) -> list[str]:
    changes = changed_files(dep)
    if changes is None:
        return []
    named = {"changed": changes.changed, "added": changes.added, "removed": changes.removed}
    lines = [f"{name}/{file} {what}" for what, files in named.items() for file in files]
    more = len(lines) - FILES_NAMED
    return [*lines[:FILES_NAMED], *([f"and {more} more in {name}"] if more > 0 else [])]


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _differences(f"{key}.{name}", old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif old is _ABSENT or new is _ABSENT or old != new:
        before, after = ("(none)" if value is _ABSENT else show(value) for value in (old, new))
        if before == after:  # 1 and "1"
            before, after = _exactly(old), _exactly(new)
        yield f"{key}: {before} -> {after}"


def _exactly(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
