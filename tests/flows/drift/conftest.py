"""A project whose model is in use: rows in English and Chinese, what the champion said of them, and a log."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.loader import load_yaml
from components.params.monitoring import Monitoring
from components.params.project import Params
from flows.drift import monitor as watching
from flows.inference import log
from flows.repo.workspace import Workspace
from flows.tracking.champions import Version
from tests.conftest import write_split

SAMPLE = Path(__file__).parents[2] / "params.yaml"
LABELS = ["negative", "positive"]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONTENT = "the champion"
WORDS = ["the", "phone", "was", "good", "bad", "lovely", "film", "story", "great", *"这个手机很好不坏"]
OTHERS = ["stock", "market", "shares", "fell", "rose", "profit", "euro", "bank", *"股票银行"]


def texts(count: int, seed: int, words: Sequence[str] = WORDS, most: int = 12) -> list[str]:
    """Random texts; every third one has no blanks."""
    draw = random.Random(seed)
    drawn = [draw.choices(words, k=draw.randint(2, most)) for _ in range(count)]
    return [("" if index % 3 == 0 else " ").join(line) for index, line in enumerate(drawn)]


def write_log(root: Path, rows: Sequence[str], name: str = "part-00000", **columns: Any) -> None:
    """Rows in the log, scored an hour ago; ``columns`` are one value each, or one for each row."""
    labels = [LABELS[index % 2] for index in range(len(rows))]
    scores = [0.9 + 0.001 * (index % 50) for index in range(len(rows))]
    given = {"id": None, "label": labels, "score": scores, "model": "小模型/1", "content": CONTENT}
    filled = {
        key: value if isinstance(value, list) else [value] * len(rows)
        for key, value in (given | {"at": NOW - timedelta(hours=1)} | columns).items()
    }
    kinds = {"score": pa.float64(), "at": pa.timestamp("us", "UTC")}
    table = {key: pa.array(value, kinds.get(key, pa.string())) for key, value in filled.items()}
    path = root / log.FOLDER / f"{max(filled['at']).strftime(log.STAMP)}-{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": pa.array(rows, pa.string()), **table}), path)


@dataclass
class Registry:
    """What the comparison asks of ``Champions``."""

    root: Path
    name: str = "小模型"
    contents: dict[str, str] = field(default_factory=lambda: {"champion": CONTENT})
    loaded_versions: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=lambda: list(LABELS))

    def on(self, alias: str) -> Version | None:
        content = self.contents.get(alias)
        return Version("1", content, None, None, (alias,)) if content else None

    @contextlib.contextmanager
    def loaded(self, version: Version) -> Iterator[Callable[[Sequence[str]], tuple[list[str], np.ndarray]]]:
        self.loaded_versions.append(version.number)
        yield lambda rows: (self.labels, np.tile([0.0, 2.5], (len(rows), 1)))


@dataclass
class Project:
    """A workspace, and its model in use."""

    root: Path
    registry: Registry

    def params(self, **rules: Any) -> Params:
        sample = Params.model_validate(load_yaml(SAMPLE))
        return sample.model_copy(update={"monitoring": Monitoring(**{"group": "all", "min_rows": 100, **rules})})

    def monitor(self, labels: Path | None = None, **rules: Any) -> dict[str, Any]:
        found = watching.monitor(
            Workspace(self.root),
            self.params(**rules),
            self.registry,
            labels=labels,
            now=NOW,
        )
        assert json.loads((self.root / "reports/monitoring.json").read_text(encoding="utf-8")) == found
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Trained on 600 rows of the groups a and b; the champion gets three of four of the 200 test rows right."""
    validated = tmp_path / "artifacts/validate"
    for split, count, seed in (("train", 600, 1), ("validation", 100, 2), ("test", 200, 3)):
        write_split(validated / split, [(text, index % 2) for index, text in enumerate(texts(count, seed))])
    (validated / "schema.json").write_text(json.dumps({"labels": LABELS}))
    sure = np.log([0.9 + 0.001 * (index % 50) for index in range(200)])
    other = np.log(1 - np.exp(sure))
    said = [index % 2 if index % 8 > 1 else 1 - index % 2 for index in range(200)]
    logits = [[other[row], sure[row]] if label else [sure[row], other[row]] for row, label in enumerate(said)]
    path = tmp_path / "artifacts/evaluate/predictions/lora.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"row": range(200), "logits": pa.array(logits, pa.list_(pa.float32(), 2))}), path)
    lock = {"finetune": {"outs": [{"path": "artifacts/finetune", "md5": CONTENT}]}}
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": lock}), encoding="utf-8")
    return Project(tmp_path, Registry(tmp_path))
