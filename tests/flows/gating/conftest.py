"""A finished pipeline of a few rows, and a registry in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from components.loader import load_yaml
from components.params.gate import Floors, Gate
from components.params.project import Params
from flows.gating import gate
from flows.repo.workspace import Workspace
from flows.tracking.champions import CANDIDATE, CHAMPION, PREVIOUS, Version
from flows.tracking.predictor import Predict

SAMPLE = Path(__file__).parents[2] / "params.yaml"
LABELS = ["negative", "positive"]
ROWS = 200
LENIENT = Floors(retention=None)


@dataclass
class Registry:
    """What ``Champions`` gives, kept in memory; ``skill`` is how many rows, from the first on, a version gets right."""

    root: Path
    name: str = "小模型"
    contents: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    decisions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    runs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    skill: dict[str, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=lambda: list(LABELS))
    gone: set[str] = field(default_factory=set)
    faults: list[Exception] = field(default_factory=list)
    scored: int = 0

    @property
    def tracker(self) -> Any:
        return SimpleNamespace(root=self.root, url=lambda run: f"http://here/{run}")

    def register(self, content: str, skill: int) -> str:
        """A version with this content, which becomes the candidate."""
        number = next((number for number, known in self.contents.items() if known == content), None)
        number = number or str(len(self.contents) + 1)
        self.contents[number], self.skill[number], self.aliases[CANDIDATE] = content, skill, number
        return number

    def versions(self) -> list[Version]:
        return [
            Version(
                number,
                content,
                f"run of {content}",
                self.decisions.get(number),
                tuple(sorted(alias for alias, on in self.aliases.items() if on == number)),
            )
            for number, content in reversed(self.contents.items())
        ]

    def on(self, alias: str) -> Version | None:
        return next((version for version in self.versions() if alias in version.aliases), None)

    @contextlib.contextmanager
    def loaded(self, version: Version) -> Iterator[Predict]:
        def predict(texts: Sequence[Any]) -> tuple[list[str], np.ndarray]:
            self.scored += len(texts)
            right = [int(text.split()[0]) < self.skill[version.number] for text in texts]
            actual = [int(text.split()[1]) for text in texts]
            classes = [label if hit else 1 - label for label, hit in zip(actual, right, strict=True)]
            return self.labels, np.eye(len(self.labels))[classes]

        yield predict

    def check_files(self, version: Version) -> None:
        if version.number in self.gone:
            raise UserError(f"The files of version {version.number} are gone.", "Put them back.", "model")

    def tell(self, version: Version, decision: Mapping[str, Any]) -> None:
        self.decisions[version.number] = json.loads(json.dumps(decision))

    def tell_run(self, run: str | None, decision: Mapping[str, Any]) -> None:
        self.runs[str(run)] = decision

    def promote(self, version: Version, instead_of: str | None) -> None:
        if self.aliases.get(CHAMPION) == version.number:
            return
        assert self.aliases.get(CHAMPION) == instead_of
        if instead_of:
            self.aliases[PREVIOUS] = instead_of
        if self.faults:
            raise self.faults.pop()
        self.aliases[CHAMPION] = version.number

    def to_roll_back(self) -> tuple[Version | None, Version]:
        previous = self.on(PREVIOUS)
        assert previous
        return self.on(CHAMPION), previous

    def settle(self) -> None:
        """Nothing here is ever cut off."""

    def roll_back(self, previous: Version, instead_of: str | None) -> None:
        assert self.aliases.get(CHAMPION) == instead_of
        self.aliases[CHAMPION] = previous.number
        del self.aliases[PREVIOUS]


@dataclass
class Project:
    """Results in a workspace: one model after the other is made, published and judged."""

    root: Path
    params: Params
    registry: Registry
    test: str = "rows-1"

    def make(self, content: str, skill: int, latency: float = 5.0) -> None:
        """The stages' results: a fine-tuned model that gets the first ``skill`` of the rows right."""
        rows, labels = list(range(ROWS)), [row % 2 for row in range(ROWS)]
        found = [label if row < skill else 1 - label for row, label in zip(rows, labels, strict=True)]
        columns: dict[str, Any] = {"row": rows, "label": labels, "prediction": found}
        # The last quarter is another group; a document has two rows.
        columns["group"] = ["products" if row < 150 else "微博" for row in rows]
        columns["document"] = [f"d{row // 2}" for row in rows]
        self._table("artifacts/evaluate/predictions/lora.parquet", columns)
        texts = {"row": rows, "text": [f"{row} {label} 文" for row, label in zip(rows, labels, strict=True)]}
        self._table("artifacts/validate/test/part-00000.parquet", texts)
        self._json("artifacts/finetune/model/config.json", {"id2label": dict(enumerate(LABELS))})
        model = {"accuracy": skill / ROWS, "megabytes": 30.0}
        self._json(
            "artifacts/evaluate/metrics.json",
            {"models": {"teacher": {"accuracy": 0.95, "megabytes": 90.0}, "lora": model}, "gains": {}},
        )
        stages = ("teacher", "distill", "control", "finetune")
        outs = {name: {"outs": [{"path": f"artifacts/{name}", "md5": f"{name} {content}"}]} for name in stages}
        lock = outs | {"evaluate": {"deps": [{"path": "artifacts/validate/test", "md5": self.test}]}}
        (self.root / "dvc.lock").write_text(json.dumps({"stages": lock}), encoding="utf-8")
        hashes = {
            "teacher": "teacher",
            "student": "distill",
            "student_without_distillation": "control",
            "lora": "finetune",
        }
        measured = {name: f"{stage} {content}" for name, stage in hashes.items()}
        speeds = {name: {"latency_p50_ms": latency} for name in ("teacher", "lora")}
        self._json("reports/benchmark.json", {"content": measured, "models": speeds})
        self.registry.register(f"finetune {content}", skill)

    def judge(self, **rules: Any) -> dict[str, Any]:
        """What the gate says of the model that was made last; what it wrote is the same."""
        params = self.params.model_copy(update={"gate": Gate(**{"floors": LENIENT, **rules})})
        decision = gate.judge(Workspace(self.root), params, self.registry, "this run", lambda done, total: None)
        assert json.loads((self.root / "reports/decision.json").read_text(encoding="utf-8")) == decision
        return decision

    def champion(self) -> str | None:
        return self.registry.aliases.get(CHAMPION)

    def _json(self, path: str, content: Any) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def _table(self, path: str, columns: Mapping[str, Any]) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(dict(columns)), self.root / path)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which nothing has run yet."""
    return Project(tmp_path, Params.model_validate(load_yaml(SAMPLE)), Registry(tmp_path))


@pytest.fixture
def champion_of_100(project: Project) -> Project:
    """A project whose champion gets half of the rows right, all of them of the target group."""
    project.make("a", skill=100)
    project.judge()
    assert project.champion() == "1"
    return dataclasses.replace(project)
