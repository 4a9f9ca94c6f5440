"""A tag for each word: entities with their characters, words that were cut off, and the loss over words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from components.ml.rows.tokenised import Collator
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import IGNORED, Reading
from components.ml.tasks.token_classification import words_of
from components.ml.training.objectives import Labels
from tests.components.ml.tasks.tools import LABELS, assert_micro_batches_add_up, items_of, model_of, own_logits, sample

NAME = "token-classification"
TASK, NAMES = TASKS[NAME], LABELS[NAME]


@pytest.mark.parametrize("reading", [Reading(64), Reading(9), Reading(9, 3)], ids=["whole", "cut", "windows"])
def test_the_loss_is_that_of_labelled_and_of_taught_words(
    reading: Reading, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows: Any = sample(NAME, 8, longest=20)
    rows[2] = (rows[2][0], None)
    taught = [place not in (1, 5) for place in range(8)]
    items, given = items_of(tmp_path, NAME, rows, tokenizer, reading, taught)
    windows = [
        (row, one) for row, (words, _) in enumerate(rows) for one in TASK.windows(tokenizer, [words], reading)[0]
    ]
    model = model_of(NAME, tokenizer)
    objective = Labels(task=TASK, alpha=0.6, beta=0.4, temperature=2.0)
    loss = assert_micro_batches_add_up(model, objective, Collator(tokenizer, TASK, 3), items)
    hard, soft = [], []
    for (row, window), item in zip(windows, items, strict=True):
        assert item["input_ids"] == list(window.features["input_ids"])
        logits = own_logits(model, tokenizer, NAME, item["input_ids"])
        for place, word in zip(window.at or [], window.covers, strict=True):
            if rows[row][1] is not None:
                hard.append(-logits[place].log_softmax(dim=-1)[rows[row][1][word]])
            if (theirs := given[row]) is not None:
                p = (torch.from_numpy(theirs[word]) / 2).softmax(dim=-1)
                soft.append(4 * (p * (p.log() - (logits[place] / 2).log_softmax(dim=-1))).sum())
    expected = 0.6 * torch.stack(soft).mean() + 0.4 * torch.stack(hard).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_words_that_the_teacher_did_not_read_are_not_learnt_from_it(tokenizer: PreTrainedTokenizerBase) -> None:
    collate = Collator(tokenizer, TASK, 2)
    item = {"input_ids": [2, 5, 6, 7, 3], "label": [0.0, 1.0, 1.0], "at": [1, 2, 3]}
    batch = collate([item | {"teacher_logits": [1.0, -1.0, 0.5, 0.0, float("nan"), float("nan")]}])
    assert Labels(task=TASK).counts(batch).tolist() == [2, 3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_and_teacher_logits_stand_at_their_tokens_on_whichever_side_rows_are_padded(
    side: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.padding_side = side
    items = [
        {"input_ids": [2, 5, 6, 3], "label": [1.0], "at": [2], "teacher_logits": [3.0, 4.0]},
        {"input_ids": [2, 5, 6, 7, 8, 3], "label": [0.0, 1.0], "at": [1, 4]},
    ]
    batch = Collator(tokenizer, TASK, 2)(items)
    (place,) = [index for index, token in enumerate(batch["input_ids"][0].tolist()) if token == 6]
    assert (batch["labels"][0] != IGNORED).nonzero().flatten().tolist() == [place]
    assert batch["teacher_logits"][0, place].tolist() == [3.0, 4.0]
    assert int((~batch["teacher_logits"].isnan()).sum()) == 2
    assert batch["labels"][1].tolist() == [IGNORED, 0, IGNORED, IGNORED, 1, IGNORED]


def test_smoothing_and_weights_are_pytorchs_over_all_words() -> None:
    logits, weights = torch.randn(2, 4, 3), torch.tensor([1.0, 0.2, 3.0])
    labels = torch.tensor([[IGNORED, 0, 2, 1], [IGNORED, 1, IGNORED, IGNORED]])
    mine, flat, _ = TASK.aligned(logits, {"labels": labels})
    found = TASK.hard_loss(mine, flat, float(TASK.labelled(flat, weights)), weights, 0.1)
    torch.testing.assert_close(found, F.cross_entropy(logits.mT, labels, weights, label_smoothing=0.1))


def test_validation_is_that_of_words_and_entities_however_rows_are_batched() -> None:
    labels = torch.randint(0, 3, (6, 5), generator=torch.Generator().manual_seed(2))
    labels[0, 2:] = labels[3, :1] = IGNORED
    logits = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(3))
    whole = TASK.found(logits, {"labels": labels})
    parts = [TASK.found(logits[rows], {"labels": labels[rows]}) for rows in (slice(0, 1), slice(1, 6))]
    torch.testing.assert_close(whole, torch.cat(parts))
    found = TASK.validation(whole.numpy(), labels.numpy(), NAMES)
    expected = F.cross_entropy(logits.mT, labels)
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert set(found) == set(TASK.validated)
    known = labels != IGNORED
    assert found["accuracy"] == pytest.approx(float((logits.argmax(-1) == labels)[known].float().mean()))
    targets = [row[there].tolist() for row, there in zip(labels, known, strict=True)]
    tags = [row[there].tolist() for row, there in zip(logits.argmax(-1), known, strict=True)]
    sums = np.asarray(TASK.counts(targets, tags, NAMES).sum(axis=0))
    assert found["f1"] == pytest.approx(float(TASK.scores(sums, NAMES)["f1"]))


def one_hot(tags: list[int], classes: int = 3) -> np.ndarray:
    return np.float32(5) * np.eye(classes, dtype=np.float32)[tags]


def test_entities_are_told_with_their_characters_in_a_raw_text() -> None:
    text = "  Ada Lovelace, 张 三\tand Bob."
    words = words_of(text)
    assert words == ["Ada", "Lovelace", ",", "张", "三", "and", "Bob", "."]
    logits = [one_hot([0, 1, 2, 0, 1, 2, 0, 2])]
    predicted = TASK.decode([text], logits, NAMES, None)
    (told,) = TASK.answers([text], predicted, logits, NAMES)
    assert [entity["text"] for entity in told["entities"]] == ["Ada Lovelace", "张 三", "Bob"]
    for entity in told["entities"]:
        assert entity["type"] == "人"
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert entity["score"] == pytest.approx(np.exp(5) / (np.exp(5) + 2))


def test_entities_are_told_with_their_characters_where_the_words_are_given() -> None:
    given = ["in", "New", "York", "live", "A.", "B."]
    logits = one_hot([2, 0, 1, 2, 0, 0])
    logits[2] = [1.0, 2.0, 0.0]  # the least sure of the first entity's words
    predicted = TASK.decode([given], [logits], NAMES, None)
    (told,) = TASK.answers([given], predicted, [logits], NAMES)
    assert [(one["text"], one["start"], one["end"]) for one in told["entities"]] == [
        ("New York", 3, 11),
        ("A.", 17, 19),
        ("B.", 20, 22),
    ]
    assert told["entities"][0]["score"] == pytest.approx(np.exp(2) / (np.exp(2) + np.exp(1) + 1))
    assert TASK.said(predicted[0], NAMES) == "O B-人 I-人 O B-人 B-人"


def test_words_that_were_cut_off_are_outside_of_all_entities() -> None:
    given = ["a", "b", "c", "d"]
    logits = one_hot([0, 1, 0])
    logits[1] = np.nan
    assert TASK.decode([given], [logits], NAMES, None) == [[0, 2, 0, 2]]
    assert TASK.confidence([logits]) == pytest.approx([np.exp(5) / (np.exp(5) + 2)])
    (told,) = TASK.answers([given], [[0, 2, 0, 2]], [logits], NAMES)
    assert [one["text"] for one in told["entities"]] == ["a", "c"]
    assert all(np.isfinite(one["score"]) for one in told["entities"])


def test_rows_are_right_as_a_whole_and_models_agree_by_words() -> None:
    assert np.array_equal(TASK.right([[0, 1], [2]], [[0, 1], [0]]), [True, False])
    assert TASK.agreement([[0, 1], [2]], [[0, 2], [2]]) == pytest.approx(2 / 3)
    details = TASK.beside([[0, 1, 2], [0, 2]], [[0, 1, 2], [2, 0]], [], NAMES)["details"]
    assert details == {"人": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "with not as many tags as tokens"),
        ({"tokens": [], "tags": []}, "with an empty list of tokens"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "with an empty token"),
        ({"tokens": ["a", "b"], "tags": ["O", "I-人"]}, None),
        ({"tokens": ["a", "b"], "tags": ["B-人", "E-地"]}, "with tags that follow neither IOB1, IOB2 nor BIOES"),
        ({"tokens": ["a", "b"], "tags": ["NOUN", "VERB"]}, None),
        ({"tokens": ["a", 5], "tags": [1, 0]}, None),
    ],
)
def test_rows_are_read_or_their_fault_is_told(values: dict[str, Any], fault: str | None) -> None:
    found = TASK.read(values)
    assert [one.what for one in found.faults] == ([] if fault is None else [fault])
    if fault is None:
        assert found.tokens == [str(token) for token in values["tokens"]]
        assert TASK.encode(found, {str(tag): place for place, tag in enumerate(values["tags"])}) == [0, 1]
