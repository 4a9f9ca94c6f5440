"""Receipts: which side effects are done for this result and this tracking server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.errors import UserError
from components.params.project import Params
from flows import gate_report
from flows.compare import measured
from flows.gating import report
from flows.repo import remotes
from flows.repo.workspace import PlannedStage, Workspace
from flows.reporting import files
from flows.settings import STATE
from flows.tracking import presence
from flows.tracking.store import shown, tracking_uri

FOLDER = STATE / "receipts"
REPORTED, BENCHMARKED, PUBLISHED = "gate report", "benchmark", "publish"
GATED, RECORDED, WRITTEN, PUSHED = "gate", "revision", "report", "push"


class Receipt:
    """The finished side effects for one identity (lock digest, tracking server, settings)."""

    def __init__(self, root: Path, identity: Mapping[str, object]) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.path = root / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self.identity = identity
        self.registers = bool(identity.get("registers", True))

    @property
    def done(self) -> dict[str, str]:
        """The side effects that were finished, each with where its result is (an MLflow run's id, a file)."""
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8"))["done"])
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    @property
    def published_last(self) -> bool:
        """Whether no other results were published from here since; else the alias ``candidate`` is on those."""
        try:
            return self._latest.read_text(encoding="utf-8").strip() == self.path.stem
        except OSError:
            return False

    @property
    def _latest(self) -> Path:
        return self.path.with_name("published_last")

    def add(self, name: str, result: str) -> None:
        """Record a finished side effect."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"identity": self.identity, "done": self.done | {name: result}}
        _write(self.path, json.dumps(content, indent=2, default=str))
        if name == PUBLISHED and self.registers:
            _write(self._latest, self.path.stem)


def _write(path: Path, text: str) -> None:
    """Never half of it, whatever dies."""
    draft = path.with_suffix(".new")
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(path)


def receipt(workspace: Workspace, params: Params, registers: bool = True) -> Receipt:
    """The receipt for the results that dvc.lock names, on this tracking server, under these settings.

    Without ``registers`` it is the one of an experiment, which moves no alias.
    """
    identity = {
        "lock": workspace.lock_digest(),
        "tracking": shown(tracking_uri(workspace.root)),
        "benchmark": params.benchmark.model_dump(),
        "publish": params.publish.model_dump(),
    } | ({} if registers else {"registers": False})
    return Receipt(workspace.root, identity)


def pushed(workspace: Workspace) -> Receipt:
    """The receipt for what dvc.lock names, and the data, being on the DVC remote."""
    return Receipt(workspace.root, {"lock": workspace.lock_digest(), "remote": remotes.identity(workspace)})


def outstanding(workspace: Workspace, params: Params, registers: bool = True, push: bool = False) -> list[str]:
    """Side effects that the results still lack, in order; one whose result was deleted since is among them.

    With ``push``, also giving them to the DVC remote where one is set.
    """
    kept = receipt(workspace, params, registers)
    done = kept.done
    published = (
        PUBLISHED in done
        and (kept.published_last or not registers)
        and presence.holds(tracking_uri(workspace.root), done[PUBLISHED])
    )
    there = {
        REPORTED: gate_report.current(workspace.root),
        BENCHMARKED: BENCHMARKED in done and _measured(workspace.root),
        PUBLISHED: published,
        GATED: not registers or (published and GATED in done and _decided(workspace, params)),
        RECORDED: published and RECORDED in done,
    }
    told = all(there[name] for name in (BENCHMARKED, PUBLISHED, GATED, RECORDED))
    there[WRITTEN] = told and WRITTEN in done and done[WRITTEN] == files.fingerprint(workspace.root, params)
    lacking = [name for name, present in there.items() if not present]
    return [*lacking, *(to_push(workspace) if push else [])]


def to_push(workspace: Workspace) -> list[str]:
    """The push, if a DVC remote is set that lacks something of what dvc.lock names."""
    return [PUSHED] if remotes.remote(workspace) and PUSHED not in pushed(workspace).done else []


def _measured(root: Path) -> bool:
    """Whether the benchmark is about these models; a damaged one isn't, and is written again."""
    try:
        return measured(root)
    except UserError:
        return False


def _decided(workspace: Workspace, params: Params) -> bool:
    """Whether the gate's decision about these results is there."""
    return report.current(workspace.root, workspace.lock_digest(), params.gate)


def foreseen(
    workspace: Workspace, params: Params, plan: Sequence[PlannedStage], registers: bool = True, push: bool = False
) -> list[str]:
    """The side effects that a run of ``plan`` would come to: new results have none of them yet."""
    if any(stage.action in ("run", "resume", "depends") for stage in plan):
        gate, share = [GATED] * registers, [PUSHED] * push
        return [BENCHMARKED, PUBLISHED, *gate, RECORDED, WRITTEN, *share]
    return outstanding(workspace, params, registers, push)
