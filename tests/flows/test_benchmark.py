"""The benchmark: what it measures, what it keeps, when it measures again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ml.rows.inputs import shown
from components.params.data import CUT, Windows
from components.params.project import Benchmark
from components.params.stages import Runtime
from flows import benchmark as module
from flows.benchmark import benchmark, sample_texts
from tests.task_models import INPUTS, save_task_model

SETTINGS, RUNTIME = Benchmark(latency_texts=3, throughput_texts=5), Runtime(threads=1)
MODELS = {"teacher": (Path("artifacts/teacher/model"), "t1"), "student": (Path("artifacts/distill/model"), "s1")}
SPEED = {"latency_p50_ms": 1.0, "latency_p95_ms": 2.0, "throughput_per_s": 3.0}


def write_rows(root: Path, shards: tuple[int, ...] = (6, 0, 6), words: str = "好 书") -> None:
    folder = root / "artifacts/validate/test"
    folder.mkdir(parents=True)
    first = 0
    for shard, rows in enumerate(shards):
        texts = pa.array([f"{words} {first + row}" for row in range(rows)], pa.string())
        pq.write_table(pa.table({"text": texts}), folder / f"part-{shard:05d}.parquet")
        first += rows


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The model folders of every measuring run; nothing is really measured."""
    calls: list[dict[str, str]] = []

    def measure(folders: dict[str, str], *_: Any) -> dict[str, dict[str, float]]:
        calls.append(folders)
        return dict.fromkeys(folders, SPEED)

    monkeypatch.setattr(module, "_measure_apart", measure)
    return calls


def test_the_same_models_are_measured_once(tmp_path: Path, measured: list[dict[str, str]]) -> None:
    write_rows(tmp_path)
    first = benchmark(tmp_path, MODELS, SETTINGS, RUNTIME, 16)
    (tmp_path / "reports/benchmark.json").unlink()
    assert benchmark(tmp_path, MODELS, SETTINGS, RUNTIME, 16) == first
    assert len(measured) == 1
    assert measured[0]["teacher"] == str(tmp_path / "artifacts/teacher/model")
    report = json.loads((tmp_path / "reports/benchmark.json").read_text(encoding="utf-8"))
    assert report["models"] == {"teacher": SPEED, "student": SPEED}
    assert {"cpu", "cores", "threads", "torch"} <= set(report["host"])
    assert report["settings"]["latency_texts"] == 3
    assert not list(tmp_path.rglob("*.partial"))


def test_one_changed_model_means_all_are_measured_in_one_run(tmp_path: Path, measured: list[dict[str, str]]) -> None:
    write_rows(tmp_path)
    benchmark(tmp_path, MODELS, SETTINGS, RUNTIME, 16)
    changed = MODELS | {"student": (MODELS["student"][0], "s2")}
    benchmark(tmp_path, changed, SETTINGS, RUNTIME, 16)
    assert [set(run) for run in measured] == [{"teacher", "student"}] * 2
    benchmark(tmp_path, MODELS, SETTINGS, RUNTIME, 16)  # back to what was measured before
    assert len(measured) == 2


def test_other_settings_runtime_length_or_texts_are_measured_anew(
    tmp_path: Path, measured: list[dict[str, str]]
) -> None:
    for root in ("one", "two"):
        write_rows(tmp_path / root, words=root)
    benchmark(tmp_path / "one", MODELS, SETTINGS, RUNTIME, 16)
    (tmp_path / "one/.stillhouse").rename(tmp_path / "two/.stillhouse")
    benchmark(tmp_path / "two", MODELS, SETTINGS, RUNTIME, 16)
    benchmark(tmp_path / "two", MODELS, Benchmark(latency_texts=2, throughput_texts=5), RUNTIME, 16)
    benchmark(tmp_path / "two", MODELS, SETTINGS, Runtime(threads=2), 16)
    benchmark(tmp_path / "two", MODELS, SETTINGS, RUNTIME, 32)
    assert len(measured) == 5


def test_texts_are_spread_over_all_shards(tmp_path: Path) -> None:
    write_rows(tmp_path, (6, 0, 6))
    folder = tmp_path / "artifacts/validate/test"
    assert sample_texts(folder, 4) == ["好 书 0", "好 书 3", "好 书 6", "好 书 9"]
    assert len(sample_texts(folder, 100)) == 12


def test_tiny_models_are_really_measured_in_a_process_of_their_own(tmp_path: Path, tiny_encoder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    write_rows(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "model")
    models = {"teacher": (Path("model"), "a"), "student": (Path("model"), "a")}
    found = benchmark(tmp_path, models, SETTINGS, RUNTIME, 16)
    assert list(found["models"]) == ["teacher", "student"]
    for speed in found["models"].values():
        assert 0 < speed["latency_p50_ms"] <= speed["latency_p95_ms"] < 10_000
        assert speed["throughput_per_s"] > 1


@pytest.mark.parametrize("task", ["token-classification", "question-answering", "multi-label-classification"])
def test_models_of_any_task_are_measured_on_what_they_read(tmp_path: Path, tiny_encoder: Path, task: str) -> None:
    folder = tmp_path / "artifacts/validate/test"
    folder.mkdir(parents=True)
    rows = INPUTS[task] * 3
    columns: dict[str, Any] = {"text": [shown(row) for row in rows]}
    if task == "token-classification":
        columns["tokens"] = rows
    if task == "question-answering":
        columns = dict(zip(("text", "text_pair"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "part-00000.parquet")
    assert sample_texts(folder, len(rows)) == rows
    save_task_model(tmp_path / "model", tiny_encoder, task)
    for windows in (CUT, Windows(stride=4)):
        found = benchmark(tmp_path, {"teacher": (Path("model"), "a")}, SETTINGS, RUNTIME, 16, windows)
        speed = found["models"]["teacher"]
        assert 0 < speed["latency_p50_ms"] <= speed["latency_p95_ms"] < 10_000
        assert speed["throughput_per_s"] > 1
    assert found["settings"]["windows"] == {"stride": 4, "pooling": "mean"}
    assert len(list((tmp_path / ".stillhouse/benchmarks").iterdir())) == 2


def test_what_is_read_survives_the_way_to_the_measuring_process() -> None:
    given = ["a", ("a", "b"), ["a", "b"], ["a"]]
    assert [module._restored(json.loads(json.dumps(module._kept(each)))) for each in given] == given


def test_a_failed_measurement_tells_why_and_keeps_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(RuntimeError, match=r"(?s)status 1.*artifacts/teacher/model"):
        benchmark(tmp_path, MODELS, SETTINGS, RUNTIME, 16)
    assert not (tmp_path / ".stillhouse").exists()
    assert not (tmp_path / "reports").exists()
