"""Several tasks over one encoder: what each batch trains, how it counts, and which task it comes from."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from components.ml.rows.task_rows import TASK, TaskRows
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import IGNORED
from components.ml.training.batches import LengthBatches
from components.ml.training.heads import head_parameters, task_model
from components.ml.training.multitask import (
    SLOT,
    MultiTaskModel,
    MultiTaskObjective,
    Sampling,
    TaskBatches,
    task_counts,
    task_schedule,
)
from components.ml.training.objectives import Labels
from components.params.phases import ByTemperature, ByWeight

Batch = dict[str, Any]
TEXTS, WORDS = TASKS["text-classification"], TASKS["token-classification"]


def models() -> MultiTaskModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    target = BertForSequenceClassification(config)
    topic = task_model(target, TEXTS, ["a", "b", "c"])
    return MultiTaskModel({"target": target, "topic": topic, "ner": task_model(target, WORDS, ["o", "x", "y", "z"])})


def objective() -> MultiTaskObjective:
    weights = torch.tensor([1.0, 3.0])
    return MultiTaskObjective({"target": Labels(class_weights=weights), "topic": Labels(), "ner": Labels(task=WORDS)})


def batch_of(task: str, rows: int, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 30, (rows, 7), generator=draw)
    attended = torch.ones_like(ids)
    attended[0, 4:] = 0
    classes = {"target": 2, "topic": 3, "ner": 4}[task]
    labels = torch.randint(0, classes, (rows, 7) if task == "ner" else (rows,), generator=draw)
    if task == "ner":
        labels[:, 0] = labels[:, -1] = labels[0, 2:] = IGNORED
    return {"input_ids": ids, "attention_mask": attended, "labels": labels, TASK: task}


def part(batch: Batch, rows: slice) -> Batch:
    return {name: value if name == TASK else value[rows] for name, value in batch.items()}


def gradient(model: MultiTaskModel, batches: list[Batch]) -> dict[str, Tensor | None]:
    """That of the accumulated batch; the losses are parts of one sum."""
    model.zero_grad()
    learnt = objective()
    counts = torch.stack([learnt.counts(batch) for batch in batches]).sum(dim=0)
    for batch in batches:
        learnt.loss(model, batch, counts).backward()
    return {name: None if one.grad is None else one.grad.clone() for name, one in model.named_parameters()}


def assert_equal(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    assert {name for name, one in found.items() if one is None} == {
        name for name, one in expected.items() if one is None
    }
    for name, one in found.items():
        if one is not None:
            torch.testing.assert_close(one, expected[name], atol=1e-6, rtol=1e-4)


def test_the_encoder_counts_once() -> None:
    model = models()
    names = [name for name, _ in model.named_parameters()]
    encoder = {name for name in names if ".bert." in name}
    assert encoder
    assert all(name.startswith("models.task_target.") for name in encoder)
    heads = [name for name in names if name not in encoder]
    assert sorted(heads) == [
        f"models.task_{task}.classifier.{kind}" for task in ("ner", "target", "topic") for kind in ("bias", "weight")
    ]


@pytest.mark.parametrize("task", ["target", "topic", "ner"])
def test_micro_batches_of_one_task_give_the_full_batchs_gradient(task: str) -> None:
    model, batch = models(), batch_of(task, 6)
    parts = [part(batch, slice(start, start + 2)) for start in (0, 2, 4)]
    whole = gradient(model, [batch])
    assert_equal(gradient(model, parts), whole)
    alone = objective().objectives[task]
    model.zero_grad()
    plain = {name: value for name, value in batch.items() if name != TASK}
    alone.loss(model.model_of(task), plain, alone.counts(plain)).backward()
    assert_equal({name: one.grad for name, one in model.named_parameters()}, whole)


def test_tasks_count_by_their_micro_batches() -> None:
    model = models()
    topic, ner = batch_of("topic", 6), batch_of("ner", 3)
    parts = [part(topic, slice(0, 4)), ner, part(topic, slice(4, 6))]
    found = gradient(model, parts)
    one, other = gradient(model, [topic]), gradient(model, [ner])
    for name, value in found.items():
        shares = [(2 / 3, one[name]), (1 / 3, other[name])]
        terms = [share * gradient for share, gradient in shares if gradient is not None]
        assert (value is None) == (not terms)
        if value is not None:
            torch.testing.assert_close(value, sum(terms), atol=1e-6, rtol=1e-4)


def test_a_head_is_untouched_by_other_tasks_batches() -> None:
    model = models()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    gradient(model, [batch_of("ner", 3), batch_of("topic", 3), batch_of("target", 3)])
    optimiser.step()  # from here on, all have moments
    before = copy.deepcopy(model.state_dict())
    found = gradient(model, [batch_of("ner", 3), batch_of("ner", 3, seed=1)])
    optimiser.step()
    after = model.state_dict()
    for task in ("target", "topic"):
        for name in head_parameters(model.model_of(task)):
            full = f"models.task_{task}.{name}"
            assert found[full] is None
            assert torch.equal(before[full], after[full])
    assert not torch.equal(before["models.task_ner.classifier.weight"], after["models.task_ner.classifier.weight"])
    embeddings = "models.task_target.bert.embeddings.word_embeddings.weight"
    assert not torch.equal(before[embeddings], after[embeddings])


def test_validation_is_that_of_the_batchs_task() -> None:
    model, learnt = models().eval(), objective()
    with torch.no_grad():
        loss, logits = learnt.validate(model, batch_of("topic", 4))
        assert logits is not None
        assert logits.shape == (4, 3)
        expected = torch.nn.functional.cross_entropy(logits, batch_of("topic", 4)["labels"])
        torch.testing.assert_close(loss, expected)
        batch = batch_of("ner", 4)
        loss, found = learnt.validate(model, batch)
        parts = [learnt.validate(model, part(batch, rows))[1] for rows in (slice(0, 1), slice(1, 4))]
    assert found is not None
    torch.testing.assert_close(found, torch.cat(parts))
    padded = np.pad(found.numpy(), ((0, 0), (0, 3)), constant_values=IGNORED)
    labels = np.pad(batch["labels"].numpy(), ((0, 0), (0, 3)), constant_values=IGNORED)
    assert WORDS.validation(padded, labels, ["o", "x", "y", "z"])["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_validation_of_words_is_scikit_learns_over_the_labelled_words() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(0, 5, (40, 9)), draw.integers(0, 5, (40, 9))
    labels[draw.random(labels.shape) < 0.4] = IGNORED
    known = labels != IGNORED
    sums = np.stack([draw.random(40), known.sum(axis=1)], axis=1)
    found = WORDS.validation(np.concatenate([sums, predicted], axis=1).astype(np.float32), labels, list("OABCD"))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels[known], predicted[known]))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels[known], predicted[known], average="macro"))
    assert found["loss"] == pytest.approx(sums[:, 0].sum() / known.sum(), rel=1e-5)


def test_counts_fit_into_their_slots_and_add_up() -> None:
    learnt = objective()
    counts = learnt.counts(batch_of("ner", 3)) + learnt.counts(batch_of("ner", 3)) + learnt.counts(batch_of("topic", 2))
    slots = counts.reshape(3, 1 + SLOT)
    assert slots[:, 0].tolist() == [0, 1, 2]
    assert slots[2, 2] == 2 * (batch_of("ner", 3)["labels"] != IGNORED).sum()


ROWS = {"target": 9000, "topic": 900, "ner": 101}
BATCHES = {"target": 90, "topic": 9, "ner": 2}


def test_each_task_has_its_own_batches_once_where_sampling_is_proportional() -> None:
    assert task_counts(BATCHES, "proportional", ROWS) == BATCHES


@pytest.mark.parametrize(
    "sampling",
    [
        ByTemperature(temperature=1.0),
        ByTemperature(temperature=3.0),
        ByTemperature(temperature=1e6),
        ByWeight(weights={"target": 1.0, "topic": 2.0, "ner": 5.0}),
    ],
)
def test_shares_are_those_asked_for_to_less_than_a_batch(sampling: Any) -> None:
    counts = task_counts(BATCHES, sampling, ROWS)
    assert sum(counts.values()) == sum(BATCHES.values())
    if isinstance(sampling, ByWeight):
        weights = sampling.weights
    else:
        weights = {name: rows ** (1 / sampling.temperature) for name, rows in ROWS.items()}
    quotas = {name: 101 * weight / sum(weights.values()) for name, weight in weights.items()}
    assert all(abs(counts[name] - quota) < 1 for name, quota in quotas.items())
    up = [quota % 1 for name, quota in quotas.items() if counts[name] > quota]
    down = [quota % 1 for name, quota in quotas.items() if counts[name] < quota]
    assert not (up and down) or min(up) >= max(down)


def test_no_task_is_left_out() -> None:
    counts = task_counts(BATCHES, ByWeight(weights={"target": 1e6, "topic": 1e-6, "ner": 1e-6}), ROWS)
    assert counts == {"target": 99, "topic": 1, "ner": 1}


def test_the_order_of_tasks_depends_on_seed_and_epoch_alone() -> None:
    order = task_schedule(BATCHES, 3, 1)
    assert Counter(order) == BATCHES
    torch.manual_seed(7)
    assert task_schedule(BATCHES, 3, 1) == order
    assert task_schedule(BATCHES, 3, 2) != order
    assert task_schedule(BATCHES, 4, 1) != order


class Part:
    """The rows of one task: just their lengths, and labels that are their numbers."""

    def __init__(self, count: int) -> None:
        self.lengths = [3 + index % 5 for index in range(count)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": [2] * self.lengths[index], "label": index}


def batches_of(rows: TaskRows, sampling: Sampling, seed: int = 0) -> TaskBatches:
    own = {
        name: LengthBatches(part.lengths, rows=4, seed=place) for place, (name, part) in enumerate(rows.parts.items())
    }
    return TaskBatches(own, rows, sampling, seed)


SAMPLINGS: list[Sampling] = [
    "proportional",
    ByTemperature(temperature=5.0),
    ByWeight(weights={"target": 1.0, "topic": 1.0, "ner": 3.0}),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_batch_is_of_one_task_and_every_row_comes_as_often_as_any_other_of_its_task(sampling: Sampling) -> None:
    rows = TaskRows({"target": Part(50), "topic": Part(21), "ner": Part(6)})
    batches = batches_of(rows, sampling)
    seen: Counter[int] = Counter()
    for epoch in range(6):
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert len(drawn) == len(batches) == 13 + 6 + 2
        tasks = [{rows[index][TASK] for index in batch} for batch in drawn]
        assert all(len(found) == 1 for found in tasks)
        assert Counter(next(iter(found)) for found in tasks) == batches.counts
        seen.update(index for batch in drawn for index in batch)
    for name, start in rows.starts.items():
        times = [seen[index] for index in range(start, start + rows.sizes[name])]
        assert max(times) - min(times) <= 1
        assert sum(times) > 0


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epochs_batches_are_the_same_whatever_was_drawn_before(sampling: Sampling) -> None:
    rows = TaskRows({"target": Part(50), "topic": Part(21), "ner": Part(6)})
    through, resumed = batches_of(rows, sampling), batches_of(rows, sampling)
    for epoch in range(4):
        through.set_epoch(epoch)
        drawn = list(through)
    resumed.set_epoch(3)
    assert list(resumed) == drawn
    resumed.set_epoch(2)
    assert list(resumed) != drawn


def test_a_small_task_goes_round_again_in_another_order() -> None:
    rows = TaskRows({"target": Part(40), "ner": Part(8)})
    batches = batches_of(rows, ByWeight(weights={"target": 1.0, "ner": 1.0}))
    small = [sorted(batch) for batch in batches if rows[batch[0]][TASK] == "ner"]
    assert len(small) == 6
    rounds = [tuple(map(tuple, sorted(small[start : start + 2]))) for start in (0, 2, 4)]
    assert all(sorted(index for batch in one for index in batch) == list(range(40, 48)) for one in rounds)
    assert len(set(rounds)) > 1


class Plain(Trainer):
    """As little of a trainer as takes batches through accelerate."""

    seen: ClassVar[list[str]] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = self.accelerator.prepare(
            DataLoader(
                self.train_dataset,
                batch_sampler=batches_of(self.train_dataset, ByTemperature(temperature=5.0)),
                collate_fn=self.data_collator,
            )
        )
        return loader

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **settings: Any) -> Any:
        self.seen.append(inputs[TASK])
        learnt = objective()
        return learnt.loss(model, inputs, learnt.counts(inputs))


def test_a_batch_keeps_its_tasks_name_on_its_way_through_the_trainer(tmp_path: Path) -> None:
    rows = TaskRows({"target": Part(10), "topic": Part(9), "ner": Part(6)})

    def collate(items: list[dict[str, Any]]) -> Batch:
        return batch_of(items[0][TASK], len(items))

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=2,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Plain(model=models(), args=arguments, train_dataset=rows, data_collator=collate)
    Plain.seen.clear()
    trainer.train()
    assert len(Plain.seen) == 16
    assert set(Plain.seen) == {"target", "topic", "ner"}


def test_any_name_of_a_task_will_do() -> None:
    target: Any = models().model_of("target")
    named = MultiTaskModel({"target": target, "train": task_model(target, TEXTS, ["a", "b"])})
    learnt = MultiTaskObjective({"target": Labels(), "train": Labels()})
    batch = batch_of("target", 3) | {TASK: "train"}
    learnt.loss(named, batch, learnt.counts(batch)).backward()
