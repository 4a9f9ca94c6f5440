"""Scores the teacher, both students and the LoRA student on the same frozen test rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.evaluate.scoring import Rows, Scored, common_classes, read_rows, score
from components.evaluate.summary import reliability, summarise
from components.evaluate.tables import read_history, write_tables
from components.ml.device import use_device
from components.ml.metrics import confusion_matrix
from components.params import Evaluate, Runtime
from components.plots import draw


def run(
    *,
    test: Path,
    teacher: Path,
    student: Path,
    student_without_distillation: Path,
    lora: Path,
    runtime: Runtime,
    max_length: int,
    settings: Evaluate,
    target_group: str,
    output: Path,
) -> None:
    """Write metrics.json, predictions/MODEL.parquet and plots/ under ``output``.

    Raises:
        UserError: there are no test rows, or the models and the data differ in their classes.
    """
    stages = {
        "teacher": teacher,
        "student_without_distillation": student_without_distillation,
        "student": student,
        "lora": lora,
    }
    use_device(runtime.device, runtime.threads)
    rows = read_rows(test)
    scored = _score_all(test, stages, runtime, max_length, settings.batch_size, output / "predictions")
    class_names = common_classes(scored, rows.labels)
    metrics = summarise(rows, scored, settings, target_group)
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    (output / "metrics.json").write_text(text + "\n", encoding="utf-8")
    _write_plots(output / "plots", metrics["models"], stages, scored, rows, class_names, settings.calibration_bins)


def _score_all(
    test: Path, stages: dict[str, Path], runtime: Runtime, max_length: int, batch_size: int, predictions: Path
) -> dict[str, Scored]:
    predictions.mkdir()
    scored = {}
    for name, folder in stages.items():
        target = predictions / f"{name}.parquet"
        scored[name] = score(
            test, folder / "model", target, runtime=runtime, max_length=max_length, batch_size=batch_size
        )
        print(f"{name}: {len(scored[name].predictions)} test rows scored", flush=True)
    return scored


def _write_plots(
    folder: Path,
    models: dict[str, Any],
    stages: dict[str, Path],
    scored: dict[str, Scored],
    rows: Rows,
    class_names: list[str],
    bins: int,
) -> None:
    confusions = {
        name: confusion_matrix(rows.labels, model.predictions, len(class_names)) for name, model in scored.items()
    }
    curves = {name: reliability(name, scored, rows.labels, bins) for name in scored}
    histories = {name: read_history(stage) for name, stage in stages.items()}
    write_tables(folder, models, confusions, curves, histories, class_names)
    draw(folder, models, confusions, curves, histories, class_names)
