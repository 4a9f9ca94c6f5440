"""Side effects: one that fails keeps none of the others back, and none is done twice."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from components.errors import UserError
from components.params.card import Card
from components.params.data import CUT
from components.params.gate import Gate
from components.params.project import Benchmark, Publish
from flows import compare, notifications
from flows.gating import gate, report
from flows.reporting import files
from flows.reporting import report as reports
from flows.runs.display import Display
from flows.runs.options import RunOptions
from flows.tracking import presence
from flows.tracking.champions import Champions

Toy = Any
VERDICTS = {
    "passed": True,
    "expectations": 0,
    "labels": ["好", "坏"],
    "rules": [],
    "summary": {
        "rows": {}, "used": {}, "set_aside": {}, "classes": {}, "groups": {},
        "tokens": {"width": 8, "bins": {}, "median": {}, "p95": {}, "max": {}},
        "files": {}, "max_length": 8, "made": {}, "seed": 13, "by_document": False,
    },
}  # fmt: skip
DECISION = {
    **{"promoted": True, "outcome": "better", "reasons": ["它更好."], "challenger": {"version": "3"}, "floors": {}},
    **{"registered_model": "候选", "rules": Gate().model_dump()},
}


@dataclass
class Effects:
    """A finished pipeline whose benchmark, tracking server and gate only pretend; what was done with them, in order."""

    toy: Toy
    done: list[str] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    champion: str | None = None
    promotes: bool = True
    card: Card = field(default_factory=Card)
    tags: dict[str, str] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    told_of: list[tuple[Any, Any]] = field(default_factory=list)
    attached: list[tuple[str, list[str]]] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(file=io.StringIO(), width=100))

    def benchmark(self, root: Path, *_: Any) -> None:
        self._do("benchmark")
        (root / "reports").mkdir(exist_ok=True)
        (root / "reports/benchmark.json").write_text('{"content": {}}')

    def publish(self, record: Any) -> Any:
        self._do("publish")
        ids = {"parent_run_id": "0123456789", "url": "http://127.0.0.1:5000/#/1", "table": "", "compared": ""}
        return SimpleNamespace(**ids, registered_model="候选", registered_version="3" if record else None)

    def on(self, alias: str) -> Any:
        assert alias == "champion"
        return self.champion and SimpleNamespace(number=self.champion)

    def judge(self, workspace: Any, params: Any, champions: Any, run: str, say: Any) -> dict[str, Any]:
        """A gate that promotes version 3, or nobody; a fault hits it after the alias has moved."""
        assert (champions.name, run) == (params.publish.registered_model, "0123456789")
        decision = DECISION | {"lock": workspace.lock_digest(), "promoted": self.promotes}
        decision["champion"] = {"version": self.champion} if self.champion else None
        self.champion = "3" if self.promotes else self.champion
        self._do("gate")
        report.write(workspace.root, decision)
        return decision

    def report(self, workspace: Any, params: Any, name: str, origin: Any, outcomes: Any) -> dict[str, Path]:
        self._do("report")
        self.told_of.append((origin, outcomes))
        return files.write(workspace.root, "<p>报告</p>", "# 模型")

    def attach(self, run_id: str, attached: dict[str, Path]) -> None:
        self.attached.append((run_id, sorted(attached)))

    def url(self, run_id: str) -> str:
        return f"http://127.0.0.1:5000/#/{run_id}"

    def describe(self, run_id: str, tags: dict[str, str]) -> None:
        self.tags |= tags

    def notify(self, root: Path, event: str, subject: str, body: str) -> None:
        self.told.append((event, subject))
        self.texts.append(body)

    def holds(self, uri: str, run_id: str) -> bool:
        return run_id == "0123456789"

    def _do(self, name: str) -> None:
        self.done.append(name)
        if name in self.failures:
            raise self.failures[name]

    def apply(self, outcomes: dict[str, str] | None = None, **options: Any) -> list[str]:
        """Do what is outstanding; the warnings. ``done`` holds what was tried this time."""
        from prefect import flow

        from flows.effects import apply_effects

        @flow(name="effects")
        def effects_flow() -> list[str]:
            params = SimpleNamespace(
                benchmark=Benchmark(),
                publish=Publish(registered_model="候选"),
                gate=Gate(),
                card=self.card,
                runtime=None,
                data=SimpleNamespace(max_length=8, windows=CUT),
            )
            shown = Display(self.console)
            return apply_effects(self.toy.workspace, params, self, shown, RunOptions(**options), (), outcomes)

        self.done.clear()
        return effects_flow()

    @property
    def shown(self) -> str:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue()

    def receipted(self) -> set[str]:
        receipts = (self.toy.root / ".stillhouse/receipts").glob("*.json")
        return {name for path in receipts for name in json.loads(path.read_text(encoding="utf-8"))["done"]}


@pytest.fixture
def effects(toy: Toy, monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> Effects:
    from flows import effects as module

    made = Effects(toy)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(module, "benchmark", made.benchmark)
    monkeypatch.setattr(module, "contents", lambda root: {})
    monkeypatch.setattr(module, "evaluated", lambda root: [])
    monkeypatch.setattr(module, "pipeline_record", lambda workspace, params, registers: registers)
    monkeypatch.setattr(notifications, "notify", made.notify)
    monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "")
    monkeypatch.setattr(presence, "holds", made.holds)
    monkeypatch.setattr(gate, "judge", made.judge)
    monkeypatch.setattr(reports, "write", made.report)
    monkeypatch.setattr(Champions, "on", lambda _, alias: made.on(alias))
    monkeypatch.setattr(compare, "comparison", lambda root: (root / "reports/benchmark.json").exists())
    monkeypatch.setattr(compare, "markdown", "| speeds: {} |".format)
    (toy.root / "artifacts/validate").mkdir()
    text = json.dumps(VERDICTS, ensure_ascii=False, indent=2) + "\n"  # as the stage writes it
    (toy.root / "artifacts/validate/gate.json").write_text(text, encoding="utf-8")
    return made


def test_what_is_done_is_receipted_and_not_repeated(effects: Effects) -> None:
    assert effects.apply() == []
    assert effects.done == ["benchmark", "publish", "gate", "report"]
    assert effects.receipted() == {"gate report", "benchmark", "publish", "gate", "revision", "report"}
    assert "MLflow run 01234567, 候选 version 3" in effects.shown
    assert "promoted: version 3 is the champion" in effects.shown
    effects.apply()
    assert effects.done == []


def test_an_error_that_nobody_foresaw_keeps_nothing_back_and_is_raised_at_the_end(effects: Effects) -> None:
    effects.failures["benchmark"] = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        effects.apply()
    assert effects.done == ["benchmark", "publish", "report"]
    assert "MLflow run" in effects.shown
    assert "benchmark    failed" in effects.shown
    assert (effects.toy.root / "reports/gate/report.html").exists()


def test_a_publication_without_speeds_is_repeated_when_there_are_some(effects: Effects) -> None:
    effects.failures["benchmark"] = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        effects.apply()
    assert effects.receipted() == {"gate report"}
    effects.failures.clear()
    effects.apply()
    assert effects.done == ["benchmark", "publish", "gate", "report"]


def test_what_the_user_can_mend_is_a_warning_and_tried_again(effects: Effects) -> None:
    effects.failures["publish"] = UserError("MLflow is away.", "Start it.", "tracking")
    assert effects.apply() == ["publish: MLflow is away.\nStart it."]
    assert effects.receipted() == {"gate report", "benchmark"}
    effects.failures.clear()
    assert effects.apply() == []
    assert effects.done == ["publish", "gate", "report"]


def test_a_full_disk_is_a_warning(effects: Effects) -> None:
    effects.failures["benchmark"] = OSError(errno.ENOSPC, "No space left on device")
    (warning,) = effects.apply()
    assert warning.startswith("benchmark: The disk is full")  # and no gate without speeds
    assert effects.done == ["benchmark", "publish", "report"]


def test_a_deleted_or_outdated_gate_report_is_made_again(effects: Effects) -> None:
    effects.apply()
    page = effects.toy.root / "reports/gate/report.html"
    page.unlink()
    effects.apply()
    assert "好" in page.read_text(encoding="utf-8")
    (effects.toy.root / "reports/gate/gate.json").write_text("{}")
    (effects.toy.root / "reports/gate/data_docs").mkdir()
    effects.apply()
    shown, verdicts = (effects.toy.root / folder / "gate.json" for folder in ("reports/gate", "artifacts/validate"))
    assert shown.read_bytes() == verdicts.read_bytes()
    assert not (effects.toy.root / "reports/gate/data_docs").exists()
    assert effects.done == []


def test_prefect_shows_the_comparison_with_the_speeds_just_measured_though_mlflow_is_away(effects: Effects) -> None:
    from prefect.artifacts import Artifact

    effects.failures["publish"] = UserError("MLflow is away.")
    effects.apply()
    artifact = Artifact.get("comparison")
    assert artifact is not None
    assert artifact.data == "| speeds: True |"


def test_the_revision_that_made_the_results_is_stored_and_named_in_mlflow(effects: Effects) -> None:
    import subprocess

    effects.apply()
    commit, ref = effects.tags["stillhouse.commit"], effects.tags["stillhouse.ref"]
    shown = subprocess.run(["git", "show", f"{ref}:dvc.lock"], cwd=effects.toy.root, capture_output=True, check=True)
    assert shown.stdout == (effects.toy.root / "dvc.lock").read_bytes()
    assert commit[:10] in effects.shown


def test_a_revision_that_could_not_be_stored_is_stored_by_the_next_run(
    effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.repo import revisions

    record = revisions.record

    def away(*_: Any) -> None:
        raise UserError("The git remote is away.", "", "network")

    monkeypatch.setattr(revisions, "record", away)
    assert effects.apply() == ["revision: The git remote is away."]
    monkeypatch.setattr(revisions, "record", record)
    assert effects.apply() == []
    assert effects.done == ["report"]  # which names the commit now
    assert "stillhouse.commit" in effects.tags


def test_a_tracking_server_that_comes_back_in_time_is_no_warning(
    effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0.1,0.1")
    effects.failures["publish"] = UserError("MLflow is away.", "", "tracking")
    assert effects.apply()
    assert effects.done.count("publish") == 3
    effects.failures["publish"] = UserError("it loads back otherwise", "", "model")
    assert effects.apply()
    assert effects.done == ["publish", "report"]


def test_an_experiment_registers_nothing_and_takes_the_alias_from_nobody(effects: Effects) -> None:
    effects.apply()
    effects.apply(registers=False)
    assert effects.done == ["benchmark", "publish", "report"]
    effects.apply(registers=False)
    assert effects.done == []
    effects.apply()
    assert effects.done == []  # the alias is still where this run has put it
    assert len(effects.told) == 1


def test_people_are_told_when_there_is_another_champion_and_only_then(effects: Effects) -> None:
    effects.apply()
    assert effects.told == [("promotion", "Stillhouse: 候选 version 3")]
    first = "`候选`: the alias `champion` moved from version none to 3: http://127.0.0.1:5000/#/0123456789"
    assert effects.texts == [f"{first}\n- 它更好."]
    effects.told.clear()
    (effects.toy.root / ".stillhouse/receipts/published_last").unlink()
    effects.apply()
    assert effects.done == ["publish", "gate", "report"]
    assert effects.told == []


def test_people_are_told_though_the_attempt_that_moved_the_alias_failed(
    effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0.1")
    judge, faults = effects.judge, [UserError("MLflow is away.", "", "tracking")]

    def once_away(*arguments: Any) -> Any:
        decision = judge(*arguments)
        if faults:
            raise faults.pop()
        return decision

    monkeypatch.setattr(gate, "judge", once_away)
    assert effects.apply() == []
    assert effects.done.count("gate") == 2
    assert effects.told == [("promotion", "Stillhouse: 候选 version 3")]


def test_a_gate_that_says_no_is_no_failure_and_tells_nobody(effects: Effects) -> None:
    effects.promotes = False
    assert effects.apply() == []
    assert "gate" in effects.receipted()
    assert "version 3 not promoted (better)" in effects.shown
    assert effects.told == []
    effects.apply()
    assert effects.done == []


def test_the_gate_is_asked_again_when_its_decision_was_deleted_and_when_it_could_not_decide(effects: Effects) -> None:
    effects.failures["gate"] = UserError("MLflow is away.", "", "tracking")
    assert effects.apply() == ["gate: MLflow is away."]
    assert effects.receipted() == {"gate report", "benchmark", "publish", "revision"}
    effects.failures.clear()
    effects.apply()
    assert effects.done == ["gate", "report"]
    (effects.toy.root / "reports/decision.json").unlink()
    effects.apply()
    assert effects.done == ["gate", "report"]


def test_prefect_shows_the_decision(effects: Effects) -> None:
    from prefect.artifacts import Artifact

    effects.apply()
    artifact = Artifact.get("decision")
    assert artifact is not None
    assert "Promoted: version 3 is the champion." in str(artifact.data)
    assert "- 它更好." in str(artifact.data)


def test_what_lies_here_already_is_pushed_with_its_data_and_only_once(
    effects: Effects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.repo import remotes

    with effects.toy.repo() as repo, repo.config.edit() as config:
        config["remote"] = {"store": {"url": str(tmp_path / "store")}}
        config["core"]["remote"] = "store"
    monkeypatch.setattr(remotes, "push_data", away := _Away(remotes.push_data))
    (warning,) = effects.apply(push=True)
    assert warning.startswith("push: the remote is away")
    away.back = True
    assert effects.apply(push=True) == []
    assert "push" in effects.receipted()
    assert remotes.push_stage(effects.toy.workspace, "join") == remotes.push_data(effects.toy.workspace) == 0
    away.back = False
    assert effects.apply(push=True) == []


@dataclass
class _Away:
    """Pushing, but the remote is away until it is back."""

    push: Any
    back: bool = False

    def __call__(self, workspace: Any) -> int:
        if not self.back:
            raise UserError("the remote is away", "", "remote")
        return int(self.push(workspace))


def test_the_report_tells_of_the_commit_and_of_what_was_restored_and_mlflow_keeps_it(effects: Effects) -> None:
    effects.apply({"first": "restored"})
    ((origin, outcomes),) = effects.told_of
    assert (origin.run, origin.commit) == ("0123456789", effects.tags["stillhouse.commit"])
    assert origin.ref == effects.tags["stillhouse.ref"]
    assert outcomes == {"first": "restored"}
    assert effects.attached == [("0123456789", ["model_card.md", "report.html"])]
    assert "reports/report.html" in effects.shown


def test_a_deleted_report_or_an_edited_card_is_written_again(effects: Effects) -> None:
    effects.apply()
    page, card = (effects.toy.root / "reports" / name for name in ("report.html", "model_card.md"))
    page.unlink()
    effects.apply()
    assert effects.done == ["report"]
    assert page.exists()
    card.write_text("edited", encoding="utf-8")
    effects.apply()
    assert effects.done == ["report"]
    assert card.read_text(encoding="utf-8") == "# 模型"


def test_what_the_card_states_newly_writes_the_report_again_and_nothing_else(effects: Effects) -> None:
    effects.apply()
    effects.card = Card(contact="谁")
    effects.apply()
    assert effects.done == ["report"]


def test_without_mlflow_there_is_a_report_all_the_same_and_it_is_written_again_when_the_rest_is_known(
    effects: Effects,
) -> None:
    effects.failures["publish"] = UserError("MLflow is away.")
    effects.apply()
    assert effects.told_of[-1][0].run is None
    assert (effects.toy.root / "reports/report.html").exists()
    assert effects.attached == []
    effects.failures.clear()
    effects.apply()
    assert effects.done == ["publish", "gate", "report"]
    assert effects.told_of[-1][0].run == "0123456789"


def test_prefect_links_to_the_report(effects: Effects) -> None:
    from prefect.artifacts import Artifact

    effects.apply()
    artifact = Artifact.get("report")
    assert artifact is not None
    assert "http://127.0.0.1:5000/#/0123456789/artifacts/report.html" in str(artifact.data)


def test_what_was_set_for_this_run_alone_is_told_in_mlflow(effects: Effects) -> None:
    effects.apply(overrides={"distill.temperature": "4"})
    assert effects.tags["stillhouse.overrides"] == "distill.temperature=4"


def test_parameters_become_flat_with_dotted_keys() -> None:
    from flows.effects import flat

    given = {
        "seed": 1,
        "rate": 0.5,
        "on": True,
        "data": {"labels": ["好", "坏"], "columns": {"group": None}, "none": {}},
        "benchmark": Benchmark(latency_texts=7),
    }
    assert flat(given) == {
        "seed": 1,
        "rate": 0.5,
        "on": True,
        "data.labels": '["好", "坏"]',
        "data.columns.group": "null",
        "benchmark.latency_texts": 7,
        "benchmark.throughput_texts": 512,
    }


def test_models_above_the_limit_are_left_to_dvc_but_never_the_registered_one(toy: Toy) -> None:
    from components.loader import load_yaml
    from components.params.project import Params
    from flows import effects as module

    settings = "[core]\n    remote = store\n['remote \"store\"']\n    url = https://me:secret@host/x\n"
    (toy.root / ".dvc/config").write_text(settings)
    for stage, size in (("teacher", 3_000), ("distill", 1_000), ("control", 3_000), ("finetune", 3_000)):
        (toy.root / "artifacts" / stage / "model").mkdir(parents=True)
        (toy.root / "artifacts" / stage / "model/weights").write_bytes(b"x" * size)
    sample = Params.model_validate(load_yaml(Path(__file__).parents[1] / "params.yaml"))
    params = sample.model_copy(update={"publish": Publish(copy_below_gb=2e-6)})
    found = module._by_reference(toy.workspace, params, registers=True)
    assert set(found) == {"teacher", "student_without_distillation"}
    assert "store https://" in found["teacher"]["stillhouse.dvc.remote"]
    assert "secret" not in str(found)
    assert "lora" in module._by_reference(toy.workspace, params, registers=False)
