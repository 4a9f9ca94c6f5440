"""What distillation and the fine-tune gained: the mean over seeds, with an interval over documents and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.evaluate.scoring import Rows
from components.ml.statistics import bootstrap
from components.params.stages import Bootstrap

GAINS = {
    "distillation": ("student", "student_without_distillation"),
    "lora": ("lora", "student"),
    "distillation_before_lora": ("lora", "lora_without_distillation"),
}
Right = Mapping[str, np.ndarray]
"""For each model of one seed, which rows it predicted right: booleans of shape (rows,)."""


def gains(rows: Rows, by_seed: Mapping[int, Right], settings: Bootstrap, target_group: str) -> dict[str, Any]:
    """For each gain whose models are there: its mean over seeds, each seed's, and its interval.

    The interval is over documents and seeds: every resample draws documents, the same for all models and seeds, and
    seeds. With one seed it is over documents alone, and ``interval_over`` says so. ``target`` holds the same on the
    rows of the target group, if there are any and it isn't all rows.
    """
    found = _gains(rows.documents, by_seed, settings)
    if target_group in rows.group_names:
        chosen = rows.groups == rows.group_names.index(target_group)
        there = {seed: {name: hits[chosen] for name, hits in right.items()} for seed, right in by_seed.items()}
        on_target = _gains(rows.documents[chosen], there, settings)
        found = {name: gain | {"target": on_target[name]} for name, gain in found.items()}
    return found


def _gains(documents: np.ndarray, by_seed: Mapping[int, Right], settings: Bootstrap) -> dict[str, dict[str, Any]]:
    scored = {(seed, name): hits for seed, right in by_seed.items() for name, hits in right.items()}
    draws = bootstrap.resample_accuracy(documents, list(scored.values()), settings.resamples, settings.seed)
    drawn = dict(zip(scored, draws, strict=True))
    count = len(np.unique(documents))
    return {
        gain: _gain(
            {seed: float(np.mean(right[name]) - np.mean(right[other])) for seed, right in by_seed.items()},
            np.stack([drawn[seed, name] - drawn[seed, other] for seed in by_seed]),
            count,
            settings,
        )
        for gain, (name, other) in GAINS.items()
        if all(name in right and other in right for right in by_seed.values())
    }


def _gain(each: dict[int, float], draws: np.ndarray, documents: int, settings: Bootstrap) -> dict[str, Any]:
    """One gain from each seed's value and its draws of documents, of shape (seeds, resamples)."""
    means = bootstrap.mean_of_drawn_seeds(draws, settings.seed)
    return {
        "accuracy": float(np.mean(list(each.values()))),
        # One document says nothing about other documents: every draw would be the same, and look certain.
        "ci": list(bootstrap.percentile_interval(means, settings.confidence)) if documents > 1 else [-1.0, 1.0],
        "by_seed": {str(seed): value for seed, value in each.items()},
        "seeds": len(each),
        "documents": documents,
        "interval_over": "documents and seeds" if len(each) > 1 else "documents",
    }
