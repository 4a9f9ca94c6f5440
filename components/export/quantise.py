"""From float32 to int8: scales for each tensor or for each channel, whichever keeps more of the headline metric."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from transformers import AutoTokenizer

from components.ml.models.onnx_classifier import PARAMETERS, WEIGHTS
from components.ml.rows.inputs import Input
from components.ml.tasks.task import Reading, Task

FLOAT = "float"
ROUNDING = 1e-9  # of shares: 0.9 - 0.89 is a little above 0.01
KINDS = {"per_tensor": False, "per_channel": True}


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the figures of all that was tried: the metric on the validation rows, and megabytes."""

    chosen: str
    tried: dict[str, dict[str, float]]


class _Inputs(CalibrationDataReader):
    """The calibration rows one by one: with none of the padding that would widen ranges."""

    def __init__(self, folder: Path, task: Task, inputs: Sequence[Input], reading: Reading) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._names = {taken.name for taken in onnx.load(folder / WEIGHTS).graph.input}
        self._task, self._inputs, self._reading = task, iter(inputs), reading

    def get_next(self) -> dict[str, Any] | None:
        given = next(self._inputs, None)
        if given is None:
            return None
        features = self._task.windows(self._tokenizer, [given], self._reading)[0][0].features
        return {name: np.array([values], dtype=np.int64) for name, values in features.items() if name in self._names}


def quantise(
    float_folder: Path,
    target: Path,
    *,
    task: Task,
    inputs: Sequence[Input],
    reading: Reading,
    tolerance: float,
    quality: Callable[[Path], float],
) -> Choice:
    """Write the better of two int8 versions of ``float_folder`` to ``target``; the float one if both lose too much.

    Static quantisation of weights and activations (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, as onnxruntime
    does it): an activation's range is that of the calibration texts, so a text's logits don't depend on its neighbours,
    as they would with ranges taken from each batch.

    Args:
        float_folder: a folder with ``model.onnx``.
        target: where the chosen one goes.
        task: what the model is for.
        inputs: the rows that activations are calibrated on.
        reading: how long they are cut.
        tolerance: how much of the headline metric may be lost, as a share.
        quality: measures the headline metric of a folder.
    """
    key = task.headline.key
    tried = {FLOAT: _figures(float_folder, key, quality)}
    for kind, per_channel in KINDS.items():
        folder = target.with_name(f"{target.name}.{kind}")
        shutil.copytree(float_folder, folder, ignore=shutil.ignore_patterns(WEIGHTS))
        _quantise(float_folder, folder / WEIGHTS, per_channel, _Inputs(float_folder, task, inputs, reading))
        tried[kind] = _figures(folder, key, quality)
    best = max(KINDS, key=lambda kind: (tried[kind][key], -tried[kind]["megabytes"]))
    if tried[FLOAT][key] - tried[best][key] > tolerance + ROUNDING:
        best = FLOAT
        shutil.copytree(float_folder, target)
    for kind in KINDS:
        folder = target.with_name(f"{target.name}.{kind}")
        if kind == best:
            folder.rename(target)
        else:
            shutil.rmtree(folder)
    return Choice(best, tried)


def _quantise(source: Path, target: Path, per_channel: bool, inputs: _Inputs) -> None:
    """The embeddings' tables, which are only looked up, and the products with weights; the small head stays float."""
    tables, products = _with_weights(source / WEIGHTS, "Gather"), _with_weights(source / WEIGHTS, "MatMul")
    looked_up = target.with_suffix(".tables")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
    try:
        quantize_dynamic(source / WEIGHTS, looked_up, nodes_to_quantize=tables, weight_type=QuantType.QInt8)
        quantize_static(
            looked_up,
            target,
            inputs,
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=products,
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
    finally:
        root.setLevel(level)
    looked_up.unlink()
    made: Any = onnx.load(target)
    parameters = {entry.key: entry.value for entry in onnx.load(source / WEIGHTS).metadata_props}[PARAMETERS]
    onnx.helper.set_model_props(made, {PARAMETERS: parameters})
    onnx.save(made, target)


def _with_weights(path: Path, operation: str) -> list[str]:
    """The nodes of an operation that read weights, in the place where that operation has them."""
    graph = onnx.load(path).graph
    weights = {weight.name for weight in graph.initializer if len(weight.dims) == 2}
    place = {"Gather": 0, "MatMul": 1}[operation]
    return [node.name for node in graph.node if node.op_type == operation and node.input[place] in weights]


def _figures(folder: Path, key: str, quality: Callable[[Path], float]) -> dict[str, float]:
    return {key: quality(folder), "megabytes": (folder / WEIGHTS).stat().st_size / 1e6}
