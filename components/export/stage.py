"""Exports the fine-tuned student, adapters merged, to ONNX in float32 and int8, and checks what comes out."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from components.ml.models.folders import content_of
from components.ml.tasks.task import Metric, Reading
from components.params.data import CUT, Windows
from components.params.export import Export
from components.params.stages import Runtime


def run(
    *,
    train: Path,
    validation: Path,
    test: Path,
    lora: Path,
    runtime: Runtime,
    max_length: int,
    settings: Export,
    output: Path,
    windows: Windows = CUT,
) -> None:
    """Write ``onnx/model/`` and ``int8/model/`` (model.onnx, config.json, tokenizer) and ``export.json``.

    Training rows calibrate, validation rows choose; the test rows are only for parity: nothing is chosen by them.

    Raises:
        UserError: the model can't be exported, or the exported one gives other logits.
    """
    reading = windows.reading(max_length)
    told = _export(train, validation, test, lora, runtime, reading, settings, output) if settings.formats else {}
    text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
    (output / "export.json").write_text(text + "\n", encoding="utf-8")


def _export(
    train: Path,
    validation: Path,
    test: Path,
    lora: Path,
    runtime: Runtime,
    reading: Reading,
    settings: Export,
    output: Path,
) -> dict[str, Any]:
    """What there is to tell of each format."""
    from components.export import rows  # importing PyTorch takes seconds, and there may be nothing to do
    from components.export.convert import convert
    from components.export.quantise import quantise
    from components.ml.models.device import use_device

    use_device("cpu", runtime.threads)
    float_folder = output / "onnx" / "model"
    convert(lora, float_folder, reading.max_length)
    parity = rows.parity(lora, float_folder, test, reading, settings)
    print(f"onnx: {parity['rows']} test rows, logits differ by {parity['largest_difference']:.1e} at most", flush=True)
    told = {"onnx": _about(float_folder) | {"parity": parity}}
    if "int8" in settings.formats:
        task = rows.task_of_folder(float_folder)
        measure = partial(rows.quality, rows=validation, reading=reading, batch_size=settings.batch_size)
        target = output / "int8" / "model"
        target.parent.mkdir()
        inputs = rows.spread(train, settings.calibration_texts)
        choice = quantise(
            float_folder,
            target,
            task=task,
            inputs=inputs,
            reading=reading,
            tolerance=settings.tolerance,
            quality=measure,
        )
        told["int8"] = _about(target) | {"chosen": choice.chosen, "tried": choice.tried}
        _tell(task.headline, choice.chosen, choice.tried, settings.tolerance)
    if "onnx" not in settings.formats:
        shutil.rmtree(output / "onnx")
        del told["onnx"]
    return told


def _tell(headline: Metric, chosen: str, tried: dict[str, dict[str, float]], tolerance: float) -> None:
    figures = ", ".join(f"{kind} {100 * found[headline.key]:.1f}" for kind, found in tried.items())
    print(f"int8: {headline.name} on the validation rows: {figures}; chosen: {chosen}", flush=True)
    if chosen == "float":
        print(f"int8: both lose more than export.tolerance ({tolerance:g}), so the float32 file stands in", flush=True)


def _about(folder: Path) -> dict[str, Any]:
    return {"content": content_of(folder), "megabytes": (folder / "model.onnx").stat().st_size / 1e6}
