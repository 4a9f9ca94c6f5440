"""Scores the teacher, the students and the fine-tunes, those of other seeds too, on the same frozen test rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from components.evaluate.scoring import Rows, Scored, Values, common_classes, read_rows, score
from components.evaluate.summary import reliability, summarise
from components.evaluate.tables import read_history, write_tables
from components.ml.models.device import use_device
from components.ml.statistics.metrics import confusion_matrix
from components.params.data import CUT, Windows
from components.params.stages import Evaluate, Runtime
from components.plots import draw

DIRECT = "lora_without_distillation"
EXPORTED = {"lora_onnx": "onnx", "lora_int8": "int8"}
"""The exported models: those whose format was asked for."""
OF_A_SEED = ("student_without_distillation", "student", DIRECT, "lora")
"""The models that ``controls`` trains again with other seeds; DIRECT only where it was asked for."""


def run(
    *,
    test: Path,
    teacher: Path,
    student: Path,
    student_without_distillation: Path,
    lora: Path,
    controls: Path,
    export: Path,
    runtime: Runtime,
    max_length: int,
    settings: Evaluate,
    target_group: str,
    output: Path,
    windows: Windows = CUT,
) -> None:
    """Write metrics.json, predictions/MODEL.parquet, predictions/seeds/SEED/MODEL.parquet and plots/ under ``output``.

    Raises:
        UserError: there are no test rows, or the models and the data differ in their classes.
    """
    stages = {
        "teacher": teacher,
        "student_without_distillation": student_without_distillation,
        "student": student,
        **({DIRECT: controls / "direct"} if (controls / "direct").exists() else {}),
        "lora": lora,
        **{name: export / folder for name, folder in EXPORTED.items() if (export / folder).exists()},
    }
    use_device(runtime.device, runtime.threads)
    rows = read_rows(test)
    score_one = partial(
        score, test, runtime=runtime, reading=windows.reading(max_length), batch_size=settings.batch_size
    )
    scored = _score_all(stages, score_one, output / "predictions")
    class_names = common_classes(scored, rows)
    by_seed = _by_seed(scored, controls, rows, score_one, output / "predictions/seeds")
    metrics = summarise(rows, scored, by_seed, settings, target_group)
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    (output / "metrics.json").write_text(text + "\n", encoding="utf-8")
    _write_plots(output / "plots", metrics["models"], stages, scored, rows, class_names, settings.calibration_bins)


def _score_all(
    stages: dict[str, Path], score_one: Callable[[Path, Path], Scored], predictions: Path, seed: str = ""
) -> dict[str, Scored]:
    predictions.mkdir(parents=True)
    scored = {}
    for name, folder in stages.items():
        scored[name] = score_one(folder / "model", predictions / f"{name}.parquet")
        print(f"{name}{seed}: {len(scored[name].predictions)} test rows scored", flush=True)
    return scored


def _by_seed(
    scored: dict[str, Scored],
    controls: Path,
    rows: Rows,
    score_one: Callable[[Path, Path], Scored],
    predictions: Path,
) -> dict[int, dict[str, Values]]:
    """The predictions of the models of each seed, the main seed's first; of the others these alone are kept."""
    ran = json.loads((controls / "controls.json").read_text(encoding="utf-8"))
    models = {name: model for name, model in scored.items() if name in OF_A_SEED}
    found = {ran["seed"]: {name: model.predictions for name, model in models.items()}}
    for seed in ran["seeds"]:
        folder = controls / "seeds" / str(seed)
        of_seed = f" of seed {seed}"
        again = _score_all({name: folder / name for name in models}, score_one, predictions / str(seed), of_seed)
        common_classes(scored | {f"{name}{of_seed}": model for name, model in again.items()}, rows)
        found[seed] = {name: model.predictions for name, model in again.items()}
    return found


def _write_plots(
    folder: Path,
    models: dict[str, Any],
    stages: dict[str, Path],
    scored: dict[str, Scored],
    rows: Rows,
    class_names: list[str],
    bins: int,
) -> None:
    task = next(iter(scored.values())).task
    classified = list(scored) if task.classes_per_row else []
    confusions = {
        name: confusion_matrix(rows.targets, scored[name].predictions, len(class_names)) for name in classified
    }
    curves = {name: reliability(name, scored, rows, bins) for name in classified}
    histories = {name: read_history(stage) for name, stage in stages.items()}
    write_tables(folder, models, confusions, curves, histories, class_names, task=task)
    draw(folder, models, confusions, curves, histories, class_names, task=task)
