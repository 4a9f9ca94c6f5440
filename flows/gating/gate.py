"""The gate: gathers the evidence, decides, writes down why, and moves the alias `champion` only for who has passed."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.params.project import Params
from flows.gating import report
from flows.gating.bout import Bout, arrange, gather, without_files
from flows.gating.champion import Progress
from flows.gating.decision import OVERRULED, TAKEN_BACK, UNCHANGED, Decision, Evidence, decide
from flows.gating.evidence import Pair
from flows.repo.workspace import Workspace
from flows.tracking.champions import CHAMPION, Champions


def judge(workspace: Workspace, params: Params, champions: Champions, run: str, say: Progress) -> dict[str, Any]:
    """Decide of the registered candidate, keep the decision everywhere, and promote who has passed.

    Repeated after a fault it comes to the same end: the tags are written before the aliases move, and a version that
    was made champion by this very decision keeps it.

    Args:
        workspace: holds the results.
        params: what names the rules.
        champions: the registered model.
        run: the MLflow run that the candidate was published with.
        say: is told how far the scoring of the champion is.

    Returns:
        what reports/decision.json holds.

    Raises:
        UserError: MLflow can't be used (``tracking``), or the champion has changed meanwhile (``busy``).
    """
    bout = arrange(workspace, params, champions)
    decision = _standing(bout, champions) or _decided(bout, champions, run, say)
    if decision["promoted"]:
        champions.promote(bout.version, bout.champion.number if bout.champion else None)
    else:
        champions.settle()
    report.write(workspace.root, decision)
    return decision


def _standing(bout: Bout, champions: Champions) -> dict[str, Any] | None:
    """The decision that has made this version champion, where it was about these results by these rules; None where
    the version's files are gone since."""
    known = bout.version.decision or {}
    if CHAMPION not in bout.version.aliases or not known.get("promoted"):
        return None
    same = (known.get("lock"), known.get("rules")) == (bout.workspace.lock_digest(), bout.params.gate.model_dump())
    return dict(known) if same and without_files(bout, champions) is None else None


def _decided(bout: Bout, champions: Champions, run: str, say: Progress) -> dict[str, Any]:
    """A new decision, kept in the tags of the version and of the run."""
    evidence = gather(bout, champions, say)
    decision = _as_dict(bout, evidence, decide(evidence, bout.params.gate), champions.name, run)
    # What has made it champion, or a person's no, is told by its own decision still.
    if decision["outcome"] not in (UNCHANGED, TAKEN_BACK, OVERRULED) or bout.version.decision is None:
        champions.tell(bout.version, decision)
    champions.tell_run(run, decision)
    return decision


def _as_dict(bout: Bout, evidence: Evidence, decision: Decision, name: str, run: str) -> dict[str, Any]:
    """All of reports/decision.json."""
    old = bout.champion
    floors = {floor.name: {"asked": floor.asked, "found": floor.found, "met": floor.met} for floor in decision.floors}
    return {
        "promoted": decision.promoted,
        "outcome": decision.outcome,
        "reasons": decision.reasons,
        "group": evidence.group,
        "task": bout.task.name,
        "headline": evidence.headline.key,
        **_compared(evidence.pair),
        "floors": floors,
        "challenger": {"model": bout.model.name, "content": bout.version.content} | _challenger(evidence),
        "champion": {"version": old.number, "content": old.content} if old else None,
        "registered_model": name,
        "test": bout.test,
        "test_set_changed": evidence.other_test_set,
        "rules": bout.params.gate.model_dump(),
        "lock": bout.workspace.lock_digest(),
        "run": run,
        "time": report.now(),
    }


def _challenger(evidence: Evidence) -> dict[str, Any]:
    """The new model as data, its scores under the headline's name."""
    key = evidence.headline.key
    named = {"accuracy": key, "teacher_accuracy": f"teacher_{key}"}
    return {named.get(name, name): value for name, value in dataclasses.asdict(evidence.challenger).items()}


def _compared(pair: Pair | None) -> dict[str, Any]:
    """The comparison as data; the same keys without one."""
    if pair is None:
        names = ("difference", "ci", "confidence", "mcnemar", "rows", "documents")
        return {**dict.fromkeys(names), "groups": {}}
    found = dataclasses.asdict(pair) | {"ci": list(pair.ci), "groups": dict(pair.groups)}
    return {name: value for name, value in found.items() if name != "differing" or value is not None}
