"""What distillation and the fine-tune gained: the mean over seeds, with an interval over documents and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.evaluate.scoring import Rows, Values
from components.ml.statistics import bootstrap
from components.ml.tasks.task import Task
from components.params.stages import Bootstrap

GAINS = {
    "distillation": ("student", "student_without_distillation"),
    "lora": ("lora", "student"),
    "distillation_before_lora": ("lora", "lora_without_distillation"),
}
Predictions = Mapping[str, Values]
"""The predictions of each model of one seed."""


def gains(
    rows: Rows,
    task: Task,
    names: Sequence[str],
    by_seed: Mapping[int, Predictions],
    settings: Bootstrap,
    target_group: str,
) -> dict[str, Any]:
    """For each gain whose models are there: its mean over seeds, each seed's, and its interval.

    What is gained is the task's headline metric. The interval is over documents and seeds: every resample draws
    documents, the same for all models and seeds, and seeds. With one seed it is over documents alone, and
    ``interval_over`` says so. ``target`` holds the same on the rows of the target group, if there are any and it isn't
    all rows.
    """
    whole = np.ones(len(rows), dtype=bool)
    found = _gains(rows, whole, task, names, by_seed, settings)
    if target_group in rows.group_names:
        chosen = rows.groups == rows.group_names.index(target_group)
        on_target = _gains(rows, chosen, task, names, by_seed, settings)
        found = {name: gain | {"target": on_target[name]} for name, gain in found.items()}
    return found


def _gains(
    rows: Rows,
    chosen: np.ndarray,
    task: Task,
    names: Sequence[str],
    by_seed: Mapping[int, Predictions],
    settings: Bootstrap,
) -> dict[str, dict[str, Any]]:
    documents, targets = rows.documents[chosen], rows.targets[chosen]
    scored = {(seed, name): made[chosen] for seed, models in by_seed.items() for name, made in models.items()}
    values, draws = headline_draws(task, names, documents, targets, list(scored.values()), settings)
    value, drawn = dict(zip(scored, values, strict=True)), dict(zip(scored, draws, strict=True))
    count = len(np.unique(documents))
    return {
        gain: _gain(
            {seed: value[seed, name] - value[seed, other] for seed in by_seed},
            np.stack([drawn[seed, name] - drawn[seed, other] for seed in by_seed]),
            count,
            settings,
            task.headline.key,
        )
        for gain, (name, other) in GAINS.items()
        if all(name in models and other in models for models in by_seed.values())
    }


def headline_draws(
    task: Task,
    names: Sequence[str],
    documents: np.ndarray,
    targets: Values,
    predictions: Sequence[Values],
    settings: Bootstrap,
) -> tuple[list[float], np.ndarray]:
    """The headline metric of every model, and its values on draws of documents, of shape (models, resamples)."""
    key = task.headline.key
    if key == "accuracy":  # a number a row is enough, however many classes there are
        right = [np.asarray(task.right(targets, predicted)) for predicted in predictions]
        draws = bootstrap.resample_accuracy(documents, right, settings.resamples, settings.seed)
        return [float(np.mean(hits)) for hits in right], draws
    counts = [task.counts(targets, predicted, names) for predicted in predictions]
    draws = bootstrap.resample_scores(
        documents, counts, lambda sums: task.scores(sums, names)[key], settings.resamples, settings.seed
    )
    return [float(task.scores(np.asarray(each.sum(axis=0)), names)[key]) for each in counts], draws


def _gain(each: dict[int, float], draws: np.ndarray, documents: int, settings: Bootstrap, key: str) -> dict[str, Any]:
    """One gain from each seed's value and its draws of documents, of shape (seeds, resamples)."""
    means = bootstrap.mean_of_drawn_seeds(draws, settings.seed)
    return {
        key: float(np.mean(list(each.values()))),
        # One document says nothing about other documents: every draw would be the same, and look certain.
        "ci": list(bootstrap.percentile_interval(means, settings.confidence)) if documents > 1 else [-1.0, 1.0],
        "by_seed": {str(seed): value for seed, value in each.items()},
        "seeds": len(each),
        "documents": documents,
        "interval_over": "documents and seeds" if len(each) > 1 else "documents",
    }
