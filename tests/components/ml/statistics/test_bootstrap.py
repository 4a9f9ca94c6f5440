"""The bootstrap over documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.metrics import f1_score

from components.ml.statistics import bootstrap, metrics
from components.ml.tasks.text_classification import TextClassification

TASK = TextClassification()


@dataclass(frozen=True)
class Draws:
    """Scores of every model on every resample: of shape (models, resamples)."""

    accuracy: np.ndarray
    macro_f1: np.ndarray


def draws(
    documents: np.ndarray, labels: np.ndarray, predictions: list[np.ndarray], seed: int = 13, **options: int
) -> Draws:
    classes = int(max(labels.max(), np.max(predictions))) + 1
    counts = [TASK.counts(labels, predicted, ["name"] * classes) for predicted in predictions]
    resamples = options.pop("resamples", 500)

    def of(key: str) -> np.ndarray:
        return bootstrap.resample_scores(
            documents, counts, lambda sums: TASK.scores(sums, [])[key], resamples, seed, **options
        )

    return Draws(of("accuracy"), of("macro_f1"))


def rows(seed: int = 0, documents: int = 40, each: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents that are easy or hard as a whole: (documents, labels, predictions)."""
    generator = np.random.default_rng(seed)
    keys = np.repeat(np.arange(documents) * 7, each)
    easy = np.repeat(generator.beta(2, 1, documents), each)
    labels = generator.integers(0, 3, len(keys))
    return keys, labels, np.where(generator.random(len(keys)) < easy, labels, (labels + 1) % 3)


def test_a_draw_of_everything_once_would_give_the_scores_themselves() -> None:
    _, labels, predictions = rows()
    hits, predicted, actual = TASK.counts(labels, predictions, ["name"] * 3).sum(axis=0).reshape(3, 3)
    assert actual.tolist() == np.bincount(labels, minlength=3).tolist()
    assert hits.tolist() == metrics.confusion_matrix(labels, predictions, 3).diagonal().tolist()
    assert predicted.tolist() == np.bincount(predictions, minlength=3).tolist()


def test_draws_equal_a_plain_loop_over_resampled_rows() -> None:
    keys, labels, predictions = rows(documents=12)
    found = draws(keys, labels, [predictions], resamples=20)
    generator = np.random.Generator(np.random.PCG64(13))
    for index in range(20):
        chosen = np.concatenate([np.flatnonzero(keys == key * 7) for key in generator.integers(0, 12, 12)])
        assert found.accuracy[0, index] == metrics.accuracy(labels[chosen], predictions[chosen])
        expected = f1_score(labels[chosen], predictions[chosen], average="macro", zero_division=0)
        assert found.macro_f1[0, index] == pytest.approx(expected)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    keys, labels, predictions = rows()
    first, again, other = (draws(keys, labels, [predictions], seed) for seed in (1, 1, 2))
    assert first.accuracy.tobytes() == again.accuracy.tobytes()
    assert first.macro_f1.tobytes() == again.macro_f1.tobytes()
    assert first.accuracy.tobytes() != other.accuracy.tobytes()


@pytest.mark.parametrize("block_weights", [1, 100, 1_000_000])
def test_the_size_of_blocks_changes_nothing(block_weights: int) -> None:
    keys, labels, predictions = rows()
    whole = draws(keys, labels, [predictions])
    blocks = draws(keys, labels, [predictions], block_weights=block_weights)
    assert whole.accuracy.tobytes() == blocks.accuracy.tobytes()
    assert whole.macro_f1.tobytes() == blocks.macro_f1.tobytes()


def test_alike_rows_of_a_document_make_the_interval_wider() -> None:
    keys, labels, predictions = rows()
    low, high = bootstrap.percentile_interval(draws(keys, labels, [predictions]).accuracy[0], 0.95)
    alone = np.arange(len(keys))
    low_alone, high_alone = bootstrap.percentile_interval(draws(alone, labels, [predictions]).accuracy[0], 0.95)
    assert high - low > 1.5 * (high_alone - low_alone)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth, covered = 2 / 3, 0  # the mean of Beta(2, 1)
    for seed in range(60):
        keys, labels, predictions = rows(seed, documents=60, each=5)
        values = draws(keys, labels, [predictions], resamples=300).accuracy[0]
        low, high = bootstrap.percentile_interval(values, 0.9)
        covered += low <= truth <= high
    assert 45 <= covered <= 60


def test_a_model_differs_from_itself_by_exactly_nothing() -> None:
    keys, labels, predictions = rows()
    found = draws(keys, labels, [predictions, predictions])
    assert (found.accuracy[0] - found.accuracy[1] == 0).all()


def test_paired_differences_vary_less_than_the_scores_of_models_that_err_alike() -> None:
    keys, labels, predictions = rows()
    other = predictions.copy()
    other[::50] = (labels[::50] + 1) % 3
    found = draws(keys, labels, [predictions, other])
    assert np.std(found.accuracy[0] - found.accuracy[1]) < 0.3 * np.std(found.accuracy[0])


def test_accuracies_of_many_models_are_those_of_the_full_resampling_to_the_bit() -> None:
    keys, labels, predictions = rows()
    others = [predictions, (predictions + 1) % 3, labels]
    expected = draws(keys, labels, others).accuracy
    for block_weights in (1, 100, 1_000_000):
        right = [one == labels for one in others]
        found = bootstrap.resample_accuracy(keys, right, 500, 13, block_weights)
        assert found.tobytes() == expected.tobytes()


def test_one_seed_is_drawn_every_time() -> None:
    values = np.random.default_rng(1).normal(size=(1, 50))
    assert (bootstrap.mean_of_drawn_seeds(values, 13) == values[0]).all()


def test_means_of_drawn_seeds_spread_as_the_mean_of_a_sample_does() -> None:
    each = np.array([0.0, 0.1, 0.3, 0.2, 0.9])
    found = bootstrap.mean_of_drawn_seeds(np.repeat(each[:, None], 20_000, axis=1), 13)
    assert found.mean() == pytest.approx(each.mean(), abs=0.005)
    assert found.std() == pytest.approx(each.std() / np.sqrt(5), rel=0.03)
    assert each.min() <= found.min() <= found.max() <= each.max()


def test_seeds_that_differ_widen_the_interval_and_like_ones_do_not() -> None:
    noise = np.random.default_rng(2).normal(0, 0.01, 4000)  # of the documents, which all seeds share
    alike, unlike = (np.stack([noise + shift for shift in shifts]) for shifts in ([0.0] * 4, [-0.1, 0.1, -0.05, 0.05]))
    one, same, wide = (
        np.subtract(*bootstrap.percentile_interval(bootstrap.mean_of_drawn_seeds(values, 13), 0.95)[::-1])
        for values in (noise[None], alike, unlike)
    )
    assert same == pytest.approx(one)
    assert wide > 3 * one


def test_one_document_gives_no_spread() -> None:
    found = draws(np.zeros(5, dtype=int), np.array([0, 1, 0, 1, 1]), [np.array([0, 1, 1, 1, 1])])
    assert set(found.accuracy[0]) == {0.8}
