"""What dvc.lock and data.dvc say: entries, hashes and digests, read without DVC."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import UserError
from components.loader import load_yaml


def read(path: Path) -> dict[str, Any]:
    """The mapping in a file that DVC wrote, not to be changed; empty when there is no such file.

    Raises:
        UserError: the file isn't YAML, or not a mapping.
    """
    if not path.exists():
        return {}
    remedy = f"Go back to the version in git: `git checkout {path.name}`."
    try:
        found = _parsed(path) or {}
    except UserError as error:
        raise UserError(error.message, remedy, kind="pipeline") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} should hold a mapping, got {type(found).__name__}.", remedy, kind="pipeline")
    return found


def _parsed(path: Path) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError):
        return load_yaml(path)  # says in which line


@lru_cache(maxsize=4)
def parse(text: str) -> Any:
    """YAML as DVC writes it and reads it itself, four times as fast as our own loader; not to be changed.

    Raises:
        YAMLError: it isn't YAML.
    """
    return YAML(typ="safe").load(text)


def entries(path: Path) -> dict[str, Any]:
    """Stage name -> what dvc.lock recorded: cmd, deps, params, outs."""
    stages: dict[str, Any] = read(path).get("stages") or {}
    return stages


def digest(value: Any) -> str:
    """sha256 of the value as JSON with sorted keys, so that the order of keys makes no difference."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def output_hash(stages: dict[str, Any], path: str) -> str | None:
    """The hash recorded for ``path`` as an output of a stage, else as a dependency of one."""
    for role in ("outs", "deps"):
        for stage in stages.values():
            for item in stage.get(role) or []:
                if item["path"] == path:
                    found: str | None = item.get("md5")
                    return found
    return None


def pinned_hash(path: Path) -> str | None:
    """The hash that a .dvc file pins; None when there is no such file."""
    outs = read(path).get("outs")
    if not path.exists():
        return None
    if isinstance(outs, list) and outs and isinstance(outs[0], dict) and isinstance(outs[0].get("md5"), str):
        return str(outs[0]["md5"])
    raise UserError(
        f"{path} doesn't pin anything: it has no outs with an md5.",
        f"Go back to the version in git (`git checkout {path.name}`), or version the data anew: `dvc add data`.",
        kind="data",
    )
