"""Test rows of tasks other than text classification, what models predict of them, and the evaluation of that."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from components.ml.tasks.table import TASKS

NAMES: dict[str, list[str]] = {
    "token-classification": ["B-人", "B-place", "I-人", "O"],
    "regression": ["score"],
    "multi-label-classification": ["cheap", "good|<b>", "快"],
    "question-answering": ["start or no answer", "end or no answer"],
    "relation-classification": ["Cause(e1,e2)", "Cause(e2,e1)", "Other"],
}
MODELS = ("teacher", "student_without_distillation", "student", "lora")
GROUPS = ["products", "推文<i>"]
WORDS = ["the", "phone", "of", "Ann", "in", "Paris", "很好", "was", "late"]


def truth(task: str, rows: int, seed: int = 0) -> tuple[list[Any], list[Any]]:
    """What a model reads of so many rows, and their targets."""
    draw = random.Random(seed)
    texts = [draw.choices(WORDS, k=6) for _ in range(rows)]
    if task == "token-classification":
        tags = {"Ann": 0, "Paris": 1}
        return texts, [[tags.get(word, 3) for word in text] for text in texts]
    joined = [" ".join(text) for text in texts]
    if task == "regression":
        return joined, [draw.gauss(0, 1) for _ in texts]
    if task == "multi-label-classification":
        return joined, [[label for label in range(3) if draw.random() < 0.4] for _ in texts]
    if task == "relation-classification":
        return joined, [draw.randrange(3) for _ in texts]
    answers = [[] if row % 4 == 0 else [{"text": text[1], "start": len(text[0]) + 1}] for row, text in enumerate(texts)]
    return [("which one?", text) for text in joined], answers


def predicted(task: str, inputs: Sequence[Any], targets: Sequence[Any], wrong: float, seed: int = 1) -> list[Any]:
    """What a model says that gets about this share of the rows wrong."""
    draw = random.Random(seed)
    found: list[Any] = []
    for given, target in zip(inputs, targets, strict=True):
        miss = draw.random() < wrong
        if task == "token-classification":
            found.append([3] * len(target) if miss else list(target))
        elif task == "regression":
            found.append(target + draw.gauss(0, 3 * wrong))
        elif task == "multi-label-classification":
            found.append([0, 1, 2] if miss else list(target))
        elif task == "relation-classification":
            found.append((target + miss) % 3)
        else:
            answer = {"text": given[1], "start": 0} if miss else (target or [{"text": "", "start": -1}])[0]
            found.append(answer | {"end": answer["start"] + len(answer["text"]) if answer["text"] else -1})
    return found


def table(task: str, targets: Sequence[Any], found: Sequence[Any], groups: Sequence[str] = GROUPS) -> pa.Table:
    """As the evaluation writes predictions, but for the logits; documents of two rows, the groups in turn."""
    kind, names, rows = TASKS[task], NAMES[task], len(targets)
    right = kind.right(targets, found)
    sure = task in ("token-classification", "question-answering", "relation-classification")
    return pa.table(
        {
            "row": pa.array(range(rows), pa.int64()),
            "group": [groups[row // 2 % len(groups)] for row in range(rows)],
            "document": [f"d{row // 2}" for row in range(rows)],
            "label": pa.array(targets, kind.target_type()),
            "prediction": pa.array(found, kind.prediction_type()),
            "actual": [kind.said(target, names) for target in targets],
            "predicted": [kind.said(one, names) for one in found],
            "right": pa.array([None] * rows if right is None else right.tolist(), pa.bool_()),
            "confidence": pa.array([0.9 - 0.001 * row if sure else None for row in range(rows)], pa.float32()),
        }
    )


def metrics(task: str, targets: Sequence[Any], models: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """metrics.json, with intervals that are made up."""
    key = TASKS[task].headline.key
    scores = {name: _model(task, targets, found) for name, found in models.items()}
    for name, found in models.items():
        scores[name] |= {
            "agreement_with_teacher": TASKS[task].agreement(found, models["teacher"]),
            **{"parameters": 1_000_000, "megabytes": 80.0 if name == "teacher" else 20.0},
            **({"ece": 0.05} if TASKS[task].classes_per_row else {}),
            "groups": {
                group: _model(task, *_of_group(targets, found, place)) | {"rows": len(targets) // 2, "documents": 9}
                for place, group in enumerate(GROUPS)
            },
        }
    gain = {key: 0.021, "ci": [0.011, 0.031], "seeds": 1, "documents": 9}
    return {
        "task": task,
        "headline": key,
        "models": scores,
        "differences": {"student - teacher": {key: -0.02, "ci": [-0.03, -0.01], "groups": {}}},
        "gains": {"distillation": gain | {"target": gain}, "lora": gain | {"target": gain}},
        **{"rows": len(targets), "documents": 9, "target_group": "products", "confidence": 0.95},
    }


def _of_group(targets: Sequence[Any], found: Sequence[Any], place: int) -> tuple[list[Any], list[Any]]:
    rows = [row for row in range(len(targets)) if row // 2 % len(GROUPS) == place]
    return [targets[row] for row in rows], [found[row] for row in rows]


def _model(task: str, targets: Sequence[Any], found: Sequence[Any]) -> dict[str, Any]:
    kind, names = TASKS[task], NAMES[task]
    sums = kind.counts(targets, found, names).sum(axis=0)
    scores: dict[str, Any] = {key: float(value) for key, value in kind.scores(sums, names).items()}
    first = [metric.key for metric in kind.metrics if metric.key in scores][:2]
    intervals = {f"{key}_ci": [scores[key] - 0.02, scores[key] + 0.02] for key in first}
    beside: dict[str, Any] = {} if task == "multi-label-classification" else kind.beside(targets, found, [], names)
    return scores | intervals | beside


def evaluated(task: str, rows: int = 60) -> tuple[dict[str, Any], list[Any], list[Any], dict[str, list[Any]]]:
    """metrics.json, inputs, targets, and each model's predictions."""
    inputs, targets = truth(task, rows)
    shares = dict(zip(MODELS, (0.1, 0.3, 0.2, 0.15), strict=True))
    models = {
        name: predicted(task, inputs, targets, wrong, place) for place, (name, wrong) in enumerate(shares.items())
    }
    return metrics(task, targets, models), inputs, targets, models


def shard(inputs: Sequence[Any]) -> pa.Table:
    """Test rows as the data gate writes them, but for the targets."""
    columns: dict[str, Any] = {"row": pa.array(range(len(inputs)), pa.int64())}
    if isinstance(inputs[0], str):
        columns["text"] = list(inputs)
    elif isinstance(inputs[0], tuple):
        columns |= {"text": [first for first, _ in inputs], "text_pair": [second for _, second in inputs]}
    else:
        columns["tokens"] = pa.array(inputs, pa.list_(pa.string()))
    return pa.table(columns)


def one_hot(classes: Sequence[int], width: int) -> np.ndarray:
    """Logits of shape (positions, classes) that say so."""
    return np.eye(width, dtype=np.float32)[list(classes)] * 4
