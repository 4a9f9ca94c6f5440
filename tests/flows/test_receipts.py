"""Receipts remember finished side effects, each for its own results and server; what the results still lack."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.errors import UserError
from components.params.card import Card
from components.params.gate import Gate
from components.params.project import Benchmark, Publish
from flows import gate_report, receipts
from flows.gating import report
from flows.receipts import Receipt
from flows.repo import remotes
from flows.repo.planning import PlannedStage
from flows.reporting import files
from flows.tracking import presence


def test_a_receipt_remembers_across_processes(tmp_path: Path) -> None:
    Receipt(tmp_path, {"lock": "a"}).add("benchmark", "a.json")
    Receipt(tmp_path, {"lock": "a"}).add("publish", "b12")
    assert Receipt(tmp_path, {"lock": "a"}).done == {"benchmark": "a.json", "publish": "b12"}


def test_other_results_or_another_server_have_their_own(tmp_path: Path) -> None:
    Receipt(tmp_path, {"lock": "a", "tracking": "one"}).add("publish", "b12")
    assert Receipt(tmp_path, {"lock": "a", "tracking": "two"}).done == {}
    assert Receipt(tmp_path, {"lock": "b", "tracking": "one"}).done == {}


def test_a_damaged_receipt_counts_as_none(tmp_path: Path) -> None:
    receipt = Receipt(tmp_path, {"lock": "a"})
    receipt.add("publish", "b12")
    receipt.path.write_text("{")
    assert receipt.done == {}


RECEIPTED = {
    "benchmark": "reports/benchmark.json",
    "publish": "b12",
    "gate": "reports/decision.json",
    "revision": "c3",
    "report": "d4",
}
ALL = ["benchmark", "publish", "gate", "revision", "report"]


@dataclass
class World:
    """What the receipts are compared with."""

    workspace: Any
    params: Any
    there: dict[str, bool]
    asked: list[str] = field(default_factory=list)

    def outstanding(self) -> list[str]:
        return receipts.outstanding(self.workspace, self.params)

    def sign(self, **done: str) -> None:
        for name, result in done.items():
            receipts.receipt(self.workspace, self.params).add(name, result)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A workspace with the lock digest "a", where the result of every side effect is there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = SimpleNamespace(root=tmp_path, lock_digest=lambda: "a")
    params = SimpleNamespace(benchmark=Benchmark(), publish=Publish(), gate=Gate(), card=Card())
    world = World(workspace, params, {"report": True, "speeds": True, "run": True, "decision": True, "files": True})

    def holds(uri: str, run_id: str) -> bool:
        world.asked.append(run_id)
        return world.there["run"]

    monkeypatch.setattr(gate_report, "current", lambda root: world.there["report"])
    monkeypatch.setattr(receipts, "measured", lambda root: world.there["speeds"])
    monkeypatch.setattr(report, "current", lambda root, lock, rules: world.there["decision"])
    monkeypatch.setattr(presence, "holds", holds)
    monkeypatch.setattr(files, "fingerprint", lambda root, params: "d4" if world.there["files"] else None)
    return world


def test_new_results_lack_speeds_and_publication_and_no_server_is_asked(world: World) -> None:
    assert world.outstanding() == ALL
    assert world.asked == []


def test_nothing_is_outstanding_when_all_is_receipted_and_there(world: World) -> None:
    world.sign(**RECEIPTED)
    assert world.outstanding() == []
    assert world.asked == ["b12"]


def test_results_that_others_were_published_after_are_published_again_so_that_the_alias_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sign(**RECEIPTED)
    with monkeypatch.context() as changed:
        changed.setattr(world.workspace, "lock_digest", lambda: "b")
        world.sign(**RECEIPTED)
        assert world.outstanding() == []
    assert world.outstanding() == ["publish", "gate", "revision", "report"]
    world.sign(publish="b12")
    assert world.outstanding() == []


@pytest.mark.parametrize(
    ("lost", "effects"),
    [
        ("report", ["gate report"]),
        ("speeds", ["benchmark", "report"]),
        ("run", ["publish", "gate", "revision", "report"]),
        ("decision", ["gate", "report"]),
        ("files", ["report"]),
    ],
)
def test_a_receipted_side_effect_whose_result_was_lost_is_outstanding(
    world: World, lost: str, effects: list[str]
) -> None:
    world.sign(**RECEIPTED)
    world.there[lost] = False
    assert world.outstanding() == effects


def test_a_damaged_benchmark_is_measured_again_instead_of_stopping_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(root: Path) -> bool:
        raise UserError("reports/benchmark.json is damaged", "Write it again: `stillhouse run`.")

    world.sign(**RECEIPTED)
    monkeypatch.setattr(receipts, "measured", damaged)
    assert world.outstanding() == ["benchmark", "report"]


def test_side_effects_come_in_the_order_in_which_they_build_on_each_other(world: World) -> None:
    world.there["report"] = False
    assert world.outstanding() == ["gate report", *ALL]


def test_other_results_settings_or_another_server_lack_what_these_have(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sign(**RECEIPTED)
    for name, value in {
        "benchmark": Benchmark(latency_texts=7),
        "publish": Publish(registered_model="other"),
    }.items():
        changed = SimpleNamespace(**vars(world.params) | {name: value})
        assert receipts.outstanding(world.workspace, changed) == ALL
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        assert world.outstanding() == ALL
    monkeypatch.setattr(world.workspace, "lock_digest", lambda: "b")
    assert world.outstanding() == ALL


def test_a_password_of_the_server_is_not_written_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:1")
    world.sign(publish="b12")
    assert "hunter2" not in receipts.receipt(world.workspace, world.params).path.read_text(encoding="utf-8")


@pytest.mark.parametrize("action", ["run", "resume", "depends"])
def test_a_run_that_makes_new_results_leads_to_their_side_effects(world: World, action: Any) -> None:
    world.sign(**RECEIPTED)
    plan = [PlannedStage("teacher", "skip"), PlannedStage("evaluate", action)]
    assert receipts.foreseen(world.workspace, world.params, plan) == ALL


def test_what_the_remote_lacks_is_outstanding_where_pushing_is_asked_for_and_only_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sign(**RECEIPTED)
    monkeypatch.setattr(remotes, "remote", lambda _: "store")
    monkeypatch.setattr(remotes, "identity", lambda _: "store /a")
    plan = [PlannedStage("teacher", "skip")]
    assert receipts.foreseen(world.workspace, world.params, plan, push=True) == ["push"]
    assert receipts.foreseen(world.workspace, world.params, [PlannedStage("a", "run")], push=True) == [*ALL, "push"]
    receipts.pushed(world.workspace).add("push", "3")
    assert receipts.foreseen(world.workspace, world.params, plan, push=True) == []
    monkeypatch.setattr(remotes, "identity", lambda _: "store /b")
    assert receipts.foreseen(world.workspace, world.params, plan, push=True) == ["push"]
    monkeypatch.setattr(remotes, "remote", lambda _: 1 / 0)  # it isn't even asked for
    assert receipts.foreseen(world.workspace, world.params, plan) == []


def test_a_run_that_makes_no_new_results_leads_to_what_is_outstanding(world: World) -> None:
    plan = [PlannedStage("teacher", "skip"), PlannedStage("evaluate", "restore")]
    world.sign(**RECEIPTED)
    assert receipts.foreseen(world.workspace, world.params, plan) == []
    world.there["run"] = False
    assert receipts.foreseen(world.workspace, world.params, plan) == ["publish", "gate", "revision", "report"]


def test_an_experiment_asks_for_no_alias_meets_no_gate_and_leaves_those_of_others_alone(world: World) -> None:
    world.sign(**RECEIPTED)
    without = [name for name in ALL if name != "gate"]
    assert receipts.outstanding(world.workspace, world.params, registers=False) == without
    plan = [PlannedStage("teacher", "run")]
    assert receipts.foreseen(world.workspace, world.params, plan, registers=False) == without
    experiment = receipts.receipt(world.workspace, world.params, registers=False)
    for name, result in RECEIPTED.items():
        experiment.add(name, result)
    assert receipts.outstanding(world.workspace, world.params, registers=False) == []
    assert world.outstanding() == []
