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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.ml.rows.inputs import Input, encode, input_columns, inputs_of, shown
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
    root: Path, models: dict[str, tuple[Path, str]], settings: Benchmark, runtime: Runtime, max_length: int
) -> dict[str, Any]:
    """Measure the models, or recall what this machine measured of the same ones, and write reports/benchmark.json.

    All models are measured in one run, in turn: ratios between numbers of different days would say more about the
    machine's load than about the models. So one model with new content means that all are measured again.

    Args:
        root: the workspace, which holds the test rows and .stillhouse/.
        models: each model's folder, absolute or under ``root``, and the hash of its content.
        settings: how many texts to measure on.
        runtime: device and threads.
        max_length: tokens at which texts are cut.

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
        | {"throughput_batch": THROUGHPUT_BATCH, "max_length": max_length, "texts": _digest(texts)},
    }
    kept = root / CACHE / f"{_digest(identity)[:16]}.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    else:
        if runtime.device != "cpu":  # restored results may have been computed elsewhere
            from components.ml.models.device import check_device

            check_device(runtime.device)
        folders = {name: str((root / folder).resolve()) for name, (folder, _) in models.items()}
        result = {"models": _measure_apart(folders, texts, settings, runtime, max_length), **identity}
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
    """At most ``count`` texts or pairs of the rows in ``folder``, evenly spread, so that every source has its share."""
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
    folders: dict[str, str], texts: list[Input], settings: Benchmark, runtime: Runtime, max_length: int
) -> dict[str, dict[str, float]]:
    """Measure in this process, the models in turn, in rounds that start with another model each.

    Latency is the time of one text at a time, throughput that of batches of 32 of similar length, each padded to its
    longest; both include tokenisation. Latency percentiles run over all rounds, throughput is the median round's.
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
        _latencies((model, tokenizer), singles[:WARM_UP_TEXTS], max_length)
        _throughput((model, tokenizer), many[:THROUGHPUT_BATCH], max_length)
    latencies: dict[str, list[float]] = {name: [] for name in models}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(ROUNDS):
        names = list(models)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            latencies[name] += _latencies(models[name], singles, max_length)
            rates[name].append(_throughput(models[name], many, max_length))
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
    parser.add_argument("--texts", type=Path, required=True, help="a JSON list of texts, or of pairs")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--settings", type=Benchmark.model_validate_json, default=Benchmark(), help="JSON")
    parser.add_argument("--runtime", type=Runtime.model_validate_json, default=Runtime(), help="JSON")
    parser.add_argument("--max-length", type=int, required=True, help="tokens at which texts are cut")
    given = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    limit_threads(given.runtime.threads)
    texts = [each if isinstance(each, str) else (each[0], each[1]) for each in json.loads(given.texts.read_bytes())]
    _write(given.output, measure(given.models, texts, given.settings, given.runtime, given.max_length))


def _measure_apart(
    folders: dict[str, str], texts: list[Input], settings: Benchmark, runtime: Runtime, max_length: int
) -> dict[str, dict[str, float]]:
    """``measure`` in a fresh process, which the memory and threads of this one don't disturb."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-benchmark-") as scratch:
        given, output = Path(scratch) / "texts.json", Path(scratch) / "result.json"
        given.write_text(json.dumps(texts), encoding="utf-8")
        command = [sys.executable, "-m", "flows.benchmark"]
        command += ["--models", json.dumps(folders), "--texts", str(given), "--output", str(output)]
        command += ["--settings", settings.model_dump_json(), "--runtime", runtime.model_dump_json()]
        command += ["--max-length", str(max_length)]
        status, tail = Process(command, Path(__file__).resolve().parents[1]).follow(lambda line: None)
        if status:
            raise RuntimeError(f"The benchmark process ended with status {status}:\n" + "\n".join(tail))
        measured: dict[str, dict[str, float]] = json.loads(output.read_text(encoding="utf-8"))
    return measured


def _latencies(model: Model, texts: list[Input], max_length: int) -> list[float]:
    """Seconds for each text."""
    from components.ml.models.scoring import predict_logits

    taken = []
    for text in texts:
        start = time.perf_counter()
        predict_logits(*model, [text], max_length=max_length, batch_size=1)
        taken.append(time.perf_counter() - start)
    return taken


def _throughput(model: Model, texts: list[Input], max_length: int) -> float:
    """Texts a second."""
    import torch

    (classifier, tokenizer), options = model, {"truncation": True, "max_length": max_length, "padding": True}
    start = time.perf_counter()
    by_length = sorted(texts, key=lambda text: len(shown(text)))
    for first in range(0, len(texts), THROUGHPUT_BATCH):
        batch = encode(tokenizer, by_length[first : first + THROUGHPUT_BATCH], return_tensors="pt", **options)
        with torch.inference_mode():
            classifier(**batch.to(classifier.device)).logits.cpu()
    return len(texts) / (time.perf_counter() - start)


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
