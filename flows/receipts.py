"""Receipts: which side effects are done for this result and this tracking server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from components.params import Params
from flows.compare import measured
from flows.settings import STATE
from flows.tracking.store import shown, tracking_uri
from flows.workspace import Workspace

FOLDER = STATE / "receipts"
BENCHMARKED, PUBLISHED = "benchmark", "publish"
EFFECTS = (BENCHMARKED, PUBLISHED)


class Receipt:
    """The finished side effects for one identity (lock digest, tracking server, settings)."""

    def __init__(self, root: Path, identity: Mapping[str, object]) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.path = root / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self.identity = identity

    @property
    def done(self) -> set[str]:
        """Names of the side effects that need not be tried again."""
        try:
            return set(json.loads(self.path.read_text(encoding="utf-8"))["done"])
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return set()

    def add(self, name: str) -> None:
        """Record a finished side effect."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"identity": self.identity, "done": sorted(self.done | {name})}
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        draft.replace(self.path)


def receipt(workspace: Workspace, params: Params) -> Receipt:
    """The receipt for the results that dvc.lock names, on this tracking server, under these settings."""
    identity = {
        "lock": workspace.lock_digest(),
        "tracking": shown(tracking_uri(workspace.root)),
        "benchmark": params.benchmark.model_dump(),
        "publish": params.publish.model_dump(),
    }
    return Receipt(workspace.root, identity)


def outstanding(workspace: Workspace, params: Params) -> list[str]:
    """Side effects that the results still lack, in order."""
    done = receipt(workspace, params).done
    return [name for name in EFFECTS if name not in done or (name == BENCHMARKED and not measured(workspace.root))]
