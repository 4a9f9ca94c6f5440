"""Latency and throughput of the models on this machine, measured in turn in a process of its own."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.ml.rows.inputs import Input, encode, input_columns, inputs_of, shown
from components.ml.tasks.table import DEFAULT
from components.ml.tasks.task import Reading, Task
from components.params.data import CUT, Windows
from components.params.project import Benchmark
from components.params.stages import Runtime
from components.runtime import limit_threads
from flows.runs.processes import Process
from flows.settings import STATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from components.ml.models.scoring import Classifier

TEST_ROWS = Path("artifacts/validate/test")
CACHE = STATE / "benchmarks"
REPORT = Path("reports/benchmark.json")
ROUNDS = 3
THROUGHPUT_BATCH = 32
WARM_UP_TEXTS = 8

Model = tuple["Classifier", "PreTrainedTokenizerBase"]


def benchmark(
    root: Path,
    models: dict[str, tuple[Path, str]],
    settings: Benchmark,
    runtime: Runtime,
    max_length: int,
    windows: Windows = CUT,
) -> dict[str, Any]:
    """Measure the models, or recall what this machine measured of the same ones, and write reports/benchmark.json.

    All models are measured in one run, in turn: ratios between numbers of different days would say more about the
    machine's load than about the models. So one model with new content means that all are measured again.

    Args:
        root: the workspace, which holds the test rows and .stillhouse/.
        models: each model's folder, absolute or under ``root``, and the hash of its content.
        settings: how many texts to measure on.
        runtime: device and threads.
        max_length: tokens at which rows are cut, or windows end.
        windows: how rows are read that are longer.

    Returns:
        ``models`` (latency_p50_ms, latency_p95_ms, throughput_per_s of each), ``host`` and ``settings``.

    Raises:
        UserError: the device isn't there.
        RuntimeError: the measuring process failed; holds the last lines that it wrote.
    """
    texts = sample_texts(root / TEST_ROWS, max(settings.latency_texts, settings.throughput_texts))
    identity = {
        "content": {name: content for name, (_, content) in models.items()},
        "host": host(runtime),
        "settings": settings.model_dump()
        | {"throughput_batch": THROUGHPUT_BATCH, "max_length": max_length, "texts": _digest(texts)}
        | ({} if windows.stride is None else {"windows": windows.model_dump()}),
    }
    kept = root / CACHE / f"{_digest(identity)[:16]}.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    else:
        if runtime.device != "cpu":  # restored results may have been computed elsewhere
            from components.ml.models.device import check_device

            check_device(runtime.device)
        folders = {name: str((root / folder).resolve()) for name, (folder, _) in models.items()}
        result = {"models": _measure_apart(folders, texts, settings, runtime, max_length, windows), **identity}
        _write(kept, result)
    _write(root / REPORT, result)
    return result


def host(runtime: Runtime) -> dict[str, Any]:
    """What decides how fast this machine is: processor, cores that may be used, threads, device, torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "threads": runtime.threads,
        "device": runtime.device,
        "torch": version("torch"),
    }


def sample_texts(folder: Path, count: int) -> list[Input]:
    """What at most ``count`` rows in ``folder`` give to read, evenly spread, so that every source has its share."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = sorted(folder.glob("*.parquet"))
    total = sum(pq.read_metadata(path).num_rows for path in shards)
    count = min(count, total)
    wanted = [index * total // count for index in range(count)]
    texts: list[Input] = []
    first = 0
    for path in shards:
        table = pq.read_table(path, columns=input_columns(folder))
        here = [index - first for index in wanted if 0 <= index - first < len(table)]
        texts += inputs_of(table.take(pa.array(here, pa.int64())))
        first += len(table)
    return texts


def measure(
    folders: dict[str, str], texts: list[Input], settings: Benchmark, runtime: Runtime, reading: Reading
) -> dict[str, dict[str, float]]:
    """Measure in this process, the models in turn, in rounds that start with another model each.

    Latency is the time of one text at a time, throughput that of batches of 32 of similar length, each padded to its
    longest; both include tokenisation. A text may be a question with its context, or words, and be read in several
    windows: then batches hold those. Latency percentiles run over all rounds, throughput is the median round's.
    """
    import numpy as np
    import torch

    from components.ml.models.folders import trust_code
    from components.ml.models.loading import load

    trust_code(runtime.trust_remote_code)
    torch.set_num_threads(runtime.threads)
    singles, many = _spread(texts, settings.latency_texts), _spread(texts, settings.throughput_texts)
    device = torch.device(runtime.device)
    models = {name: load(Path(folder), device) for name, folder in folders.items()}
    for model, tokenizer in models.values():
        _latencies((model, tokenizer), singles[:WARM_UP_TEXTS], reading)
        _throughput((model, tokenizer), many[:THROUGHPUT_BATCH], reading)
    latencies: dict[str, list[float]] = {name: [] for name in models}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(ROUNDS):
        names = list(models)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            latencies[name] += _latencies(models[name], singles, reading)
            rates[name].append(_throughput(models[name], many, reading))
    return {
        name: {
            "latency_p50_ms": 1000 * float(np.percentile(latencies[name], 50)),
            "latency_p95_ms": 1000 * float(np.percentile(latencies[name], 95)),
            "throughput_per_s": float(np.median(rates[name])),
        }
        for name in models
    }


def main(arguments: list[str]) -> None:
    """Measure and write the result to ``--output``; the command of the measuring process."""
    parser = argparse.ArgumentParser(prog="python -m flows.benchmark", description=__doc__)
    parser.add_argument("--models", type=json.loads, required=True, help="JSON: each model's folder by its name")
    parser.add_argument("--texts", type=Path, required=True, help="a JSON list of texts, pairs or {words: [...]}")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--settings", type=Benchmark.model_validate_json, default=Benchmark(), help="JSON")
    parser.add_argument("--runtime", type=Runtime.model_validate_json, default=Runtime(), help="JSON")
    parser.add_argument("--max-length", type=int, required=True, help="tokens at which texts are cut")
    parser.add_argument("--windows", type=Windows.model_validate_json, default=CUT, help="JSON")
    given = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    limit_threads(given.runtime.threads)
    texts = [_restored(each) for each in json.loads(given.texts.read_bytes())]
    reading = given.windows.reading(given.max_length)
    _write(given.output, measure(given.models, texts, given.settings, given.runtime, reading))


def _kept(given: Input) -> Any:
    """What a model reads of a row, as JSON tells it apart."""
    return {"words": given} if isinstance(given, list) else given


def _restored(kept: Any) -> Input:
    """The same again."""
    if isinstance(kept, dict):
        words: list[str] = kept["words"]
        return words
    return kept if isinstance(kept, str) else (kept[0], kept[1])


def _measure_apart(
    folders: dict[str, str],
    texts: list[Input],
    settings: Benchmark,
    runtime: Runtime,
    max_length: int,
    windows: Windows,
) -> dict[str, dict[str, float]]:
    """``measure`` in a fresh process, which the memory and threads of this one don't disturb."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-benchmark-") as scratch:
        given, output = Path(scratch) / "texts.json", Path(scratch) / "result.json"
        given.write_text(json.dumps([_kept(each) for each in texts]), encoding="utf-8")
        command = [sys.executable, "-m", "flows.benchmark"]
        command += ["--models", json.dumps(folders), "--texts", str(given), "--output", str(output)]
        command += ["--settings", settings.model_dump_json(), "--runtime", runtime.model_dump_json()]
        command += ["--max-length", str(max_length), "--windows", windows.model_dump_json()]
        status, tail = Process(command, Path(__file__).resolve().parents[1]).follow(lambda line: None)
        if status:
            raise RuntimeError(f"The benchmark process ended with status {status}:\n" + "\n".join(tail))
        measured: dict[str, dict[str, float]] = json.loads(output.read_text(encoding="utf-8"))
    return measured


def _latencies(model: Model, texts: list[Input], reading: Reading) -> list[float]:
    """Seconds for each text."""
    from components.ml.models.scoring import predict_rows

    taken = []
    for text in texts:
        start = time.perf_counter()
        predict_rows(*model, [text], reading=reading, batch_size=1)
        taken.append(time.perf_counter() - start)
    return taken


def _throughput(model: Model, texts: list[Input], reading: Reading) -> float:
    """Texts a second."""
    import torch

    from components.ml.models.task_models import task_of

    (classifier, tokenizer), task = model, task_of(model[0])
    cut = task.name == DEFAULT and reading.stride is None
    start = time.perf_counter()
    for batch in _texts_in_batches(tokenizer, texts, reading) if cut else _in_batches(task, tokenizer, texts, reading):
        with torch.inference_mode():
            task.logits(classifier(**batch.to(classifier.device))).cpu()
    return len(texts) / (time.perf_counter() - start)


def _texts_in_batches(tokenizer: PreTrainedTokenizerBase, texts: list[Input], reading: Reading) -> Iterator[Any]:
    """Batches of texts or pairs of similar length; the tokenizer cuts and pads them in one call."""
    options: dict[str, Any] = {"truncation": True, "max_length": reading.max_length, "padding": True}
    by_length = sorted(texts, key=lambda text: len(shown(text)))
    for first in range(0, len(texts), THROUGHPUT_BATCH):
        yield encode(tokenizer, by_length[first : first + THROUGHPUT_BATCH], return_tensors="pt", **options)


def _in_batches(task: Task, tokenizer: PreTrainedTokenizerBase, texts: list[Input], reading: Reading) -> Iterator[Any]:
    """Batches of windows of similar length, whatever the task."""
    windows = [window for row in task.windows(tokenizer, texts, reading) for window in row]
    windows.sort(key=lambda window: len(window.features["input_ids"]))
    for first in range(0, len(windows), THROUGHPUT_BATCH):
        features = [dict(window.features) for window in windows[first : first + THROUGHPUT_BATCH]]
        yield tokenizer.pad(features, padding=True, return_tensors="pt")


def _spread(texts: list[Input], count: int) -> list[Input]:
    count = min(count, len(texts))
    return [texts[index * len(texts) // count] for index in range(count)]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON beside the place and rename, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
