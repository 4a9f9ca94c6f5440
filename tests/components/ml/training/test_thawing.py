"""Gradual thawing follows its schedule, from the head down."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.ml.models.storage import load_base
from components.ml.training.thawing import Thawing
from components.ml.training.trainable import choose, levels


def training(thawing: Thawing, by_level: list[Any], step: int) -> list[bool]:
    thawing.on_step_begin(None, SimpleNamespace(global_step=step), None)
    return [all(one.requires_grad for one in level.values()) for level in by_level]


@pytest.mark.parametrize("frozen", [False, True], ids=["embeddings", "embeddings frozen"])
def test_one_more_layer_thaws_at_a_time_and_the_embeddings_come_last(tiny_encoder: Path, frozen: bool) -> None:
    model = load_base(tiny_encoder, ["negative", "positive"])[0]
    by_level = levels(model, model)
    choose("all", by_level, freeze_embeddings=frozen)
    thawing = Thawing(by_level, steps_per_layer=10)
    seen = [training(thawing, by_level, step) for step in (0, 9, 10, 19, 20, 30, 40, 99)]
    depths = [1, 1, 2, 2, 3, 4, 4 if frozen else 5, 4 if frozen else 5]
    assert seen == [[index < depth for index in range(5)] for depth in depths]


def test_a_resumed_run_trains_what_was_thawed(tiny_encoder: Path) -> None:
    model = load_base(tiny_encoder, ["negative", "positive"])[0]
    by_level = levels(model, model)
    choose("all", by_level, freeze_embeddings=False)
    thawing = Thawing(by_level, steps_per_layer=2.5)
    thawing.on_train_begin(None, SimpleNamespace(global_step=6), None)
    assert [all(one.requires_grad for one in level.values()) for level in by_level] == [True, True, True, False, False]
