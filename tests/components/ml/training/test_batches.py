"""Batches by rows and by tokens: every row once, within the bounds, in an order that seed and epoch alone decide."""

from __future__ import annotations

import random

import pytest

from components.ml.training.batches import BUCKET, LengthBatches, LongestFirst

LENGTHS = [random.Random(0).randint(3, 90) for _ in range(500)]
WAYS = {"rows": {"rows": 16}, "tokens": {"rows": 16, "tokens": 512}, "accumulated": {"rows": 8, "accumulate": 4}}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


@ways
def test_an_epoch_holds_every_row_once_in_as_many_batches_as_said(way: dict[str, int]) -> None:
    batches = LengthBatches(LENGTHS, seed=1, **way)
    for epoch in range(3):
        batches.set_epoch(epoch)
        made = list(batches)
        assert len(made) == len(batches)
        assert sorted(row for batch in made for row in batch) == list(range(len(LENGTHS)))


@ways
def test_the_order_depends_on_seed_and_epoch_alone(way: dict[str, int]) -> None:
    def epoch(number: int, seed: int = 1) -> list[list[int]]:
        batches = LengthBatches(LENGTHS, seed=seed, **way)
        batches.set_epoch(number)
        return list(batches)

    assert epoch(3) == epoch(3)
    assert epoch(3) != epoch(4)
    assert epoch(3) != epoch(3, seed=2)


def test_no_batch_holds_more_tokens_than_allowed_padding_included() -> None:
    for batch in LengthBatches(LENGTHS, rows=1, tokens=256):
        assert len(batch) * max(LENGTHS[row] for row in batch) <= 256


def test_a_row_longer_than_a_batch_is_one_of_its_own() -> None:
    batches = list(LengthBatches([400, 10, 10], rows=1, tokens=64))
    assert [0] in batches
    assert sorted(map(len, batches)) == [1, 2]


def test_batches_by_tokens_waste_little_on_padding() -> None:
    made = list(LengthBatches(LENGTHS, rows=1, tokens=512))
    padded = sum(len(batch) * max(LENGTHS[row] for row in batch) for batch in made)
    assert padded < 1.2 * sum(LENGTHS)
    assert len(made) <= 1.2 * sum(length + BUCKET for length in LENGTHS) / 512


def test_rows_of_one_batch_are_of_similar_length() -> None:
    made = list(LengthBatches(LENGTHS, rows=16, seed=1))
    spread = sum(max(LENGTHS[row] for row in batch) - min(LENGTHS[row] for row in batch) for batch in made) / len(made)
    assert spread < 10  # 87 if they were drawn at random


def test_whoever_listens_is_told_the_epoch() -> None:
    heard: list[int] = []
    batches = LengthBatches(LENGTHS, rows=16)
    batches.listeners.append(heard.append)
    batches.set_epoch(2)
    assert heard == [2]


def test_validation_reads_the_longest_rows_first() -> None:
    assert list(LongestFirst([3, 9, 9, 1])) == [1, 2, 0, 3]
