"""The span of a context that answers: where it stands in windows, what is learnt of it, which one is best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from components.ml.models.scoring import predict_rows
from components.ml.rows.tokenised import Collator
from components.ml.tasks.question_answering import LONGEST, best_span, context_spans
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import IGNORED, Reading
from components.ml.training.objectives import Labels
from tests.components.ml.tasks.tools import LABELS, assert_micro_batches_add_up, items_of, model_of, own_logits, sample

NAME = "question-answering"
TASK, NAMES = TASKS[NAME], LABELS[NAME]
ALWAYS = ["start", "end"]
"""The labels where every question has an answer."""


@pytest.mark.parametrize("reading", [Reading(64), Reading(18), Reading(18, 3)], ids=["whole", "cut", "windows"])
def test_the_loss_is_that_of_both_ends_over_the_tokens_that_may_be_one(
    reading: Reading, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows: Any = sample(NAME, 8, longest=20)
    rows[2] = (rows[2][0], None)
    taught = [place not in (1, 5) for place in range(8)]
    items, given = items_of(tmp_path, NAME, rows, tokenizer, reading, taught)
    windows = [(row, one) for row, (pair, _) in enumerate(rows) for one in TASK.windows(tokenizer, [pair], reading)[0]]
    model = model_of(NAME, tokenizer)
    objective = Labels(task=TASK, alpha=0.6, beta=0.4, temperature=2.0)
    loss = assert_micro_batches_add_up(model, objective, Collator(tokenizer, TASK, 2), items)
    hard, soft = [], []
    for (row, window), item in zip(windows, items, strict=True):
        assert item["input_ids"] == list(window.features["input_ids"])
        logits = own_logits(model, tokenizer, NAME, item["input_ids"], item["token_type_ids"])[list(window.at or [])]
        for end in (0, 1):
            if rows[row][1] is not None:
                place = list(window.at or []).index(TASK.window_target(window, rows[row][1], 2)[end])
                hard.append(-logits[:, end].log_softmax(dim=0)[place])
            if (theirs := given[row]) is not None:
                p = (torch.from_numpy(theirs[list(window.covers), end]) / 2).softmax(dim=0)
                soft.append(4 * (p * (p.log() - (logits[:, end] / 2).log_softmax(dim=0))).sum())
    expected = 0.6 * torch.stack(soft).mean() + 0.4 * torch.stack(hard).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_the_soft_loss_is_finite_at_any_temperature(
    temperature: float, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    items, _ = items_of(tmp_path, NAME, sample(NAME, 3), tokenizer)
    batch = Collator(tokenizer, TASK, 2)(items)
    mine, _, theirs = TASK.aligned(torch.randn(*batch["input_ids"].shape, 2), batch)
    assert theirs is not None
    assert torch.isfinite(TASK.soft_loss(mine, theirs, temperature, len(mine)))
    assert TASK.soft_loss(theirs, theirs, temperature, len(mine)).abs() < 1e-3


def test_a_window_of_which_the_teacher_did_not_read_all_is_not_learnt_from_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    item = {"input_ids": [2, 5, 3, 6, 7, 3], "label": [3.0, 4.0], "at": [0, 3, 4]}
    known, lacking = [0.0, 1, 2, 3, 4, 5], [0.0, 1, 2, 3, float("nan"), float("nan")]
    batch = Collator(tokenizer, TASK, 2)([item | {"teacher_logits": known}, item | {"teacher_logits": lacking}, item])
    assert Labels(task=TASK).counts(batch).tolist() == [2, 6]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_answer_stands_at_its_tokens_on_whichever_side_rows_are_padded(
    side: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.padding_side = side
    items = [
        {"input_ids": [2, 5, 3, 6, 7, 3], "label": [3.0, 4.0], "at": [0, 3, 4]},
        {"input_ids": [2, 5, 3, 6, 7, 8, 9, 3], "label": [0.0, 0.0], "at": [0, 3, 4, 5, 6]},
        {"input_ids": [2, 5, 3, 6, 3], "label": None, "at": [0, 3]},
    ]
    batch = Collator(tokenizer, TASK, 2)(items)
    ids, labels = batch["input_ids"], batch["labels"]
    assert [ids[0, place].item() for place in labels[0, :2].tolist()] == [6, 7]
    assert [ids[1, place].item() for place in labels[1, :2].tolist()] == [2, 2]
    assert labels[2, :2].tolist() == [IGNORED, IGNORED]
    for row, item in enumerate(items):
        possible = ids[row][labels[row, 2:] == 1].tolist()
        assert possible == [item["input_ids"][place] for place in item["at"]]


def answer(context: str, text: str) -> dict[str, Any]:
    return {"text": text, "start": context.index(text)}


def test_the_answer_is_found_in_the_windows_that_hold_all_of_it(tokenizer: PreTrainedTokenizerBase) -> None:
    context = "the good phone was a bad film and it broken story"
    # Of 14 tokens 3 are special and 2 the question's: 9 tokens of the context a window.
    windows = TASK.windows(tokenizer, [("good film", context)], Reading(14, 4))[0]
    spans = [(window.spans[1][0], window.spans[-1][1]) for window in windows]
    assert [context[start:end] for start, end in spans] == [
        "the good phone was a bad film and it",
        "bad film and it broken story",
    ]

    def told(text: str) -> list[str]:
        found = [TASK.window_target(window, [answer(context, text)], 2) for window in windows]
        return [
            str(tokenizer.decode(window.features["input_ids"][first : last + 1]))
            for window, (first, last) in zip(windows, found, strict=True)
        ]

    nothing = "[CLS]"
    assert told("the good") == ["the good", nothing]  # at the first window's edge
    assert told("and it") == ["[UNK] it", "[UNK] it"]  # at an edge of one, inside of the other
    assert told("bad") == ["bad", "bad"]
    assert told("it broken") == [nothing, "it broken"]  # cut by the first window's edge
    assert told("a bad") == ["a bad", nothing]  # cut by the second window's edge
    assert told("story") == [nothing, "story"]
    cut = TASK.windows(tokenizer, [("good film", context)], Reading(14))[0]
    assert [TASK.window_target(window, [answer(context, "story")], 2) for window in cut] == [[0, 0]]
    assert [TASK.window_target(window, [], 2) for window in windows] == [[0, 0], [0, 0]]
    both = [answer(context, "story"), answer(context, "the")]  # the first of several that is there
    assert [TASK.window_target(window, both, 2)[0] > 0 for window in windows] == [True, True]


def test_a_part_of_a_token_stands_for_the_token(tokenizer: PreTrainedTokenizerBase) -> None:
    context = "good 手机 goodbad"
    (window,) = TASK.windows(tokenizer, [("the", context)], Reading(32))[0:1][0]
    for text, tokens in (
        ("oo", ["good"]),
        ("手机", ["手", "机"]),
        ("机", ["机"]),
        ("d 手", ["good", "手"]),
        ("bad", ["##bad"]),
    ):
        first, last = TASK.window_target(window, [answer(context, text)], 2)
        assert tokenizer.convert_ids_to_tokens(window.features["input_ids"][first : last + 1]) == tokens


def brute_force(logits: np.ndarray) -> tuple[float, set[tuple[int, int]]]:
    """The best sum of all spans of at most ``LONGEST`` tokens, and the spans that have it."""
    scored: dict[tuple[int, int], float] = {}
    for first in range(1, len(logits)):
        for last in range(first, min(first + LONGEST, len(logits))):
            value = float(logits[first, 0]) + float(logits[last, 1])
            if not np.isnan(value):
                scored[first, last] = value
    best = max(scored.values(), default=-np.inf)
    return best, {span for span, value in scored.items() if value == best}


def test_the_best_span_is_the_best_of_all() -> None:
    draw = np.random.default_rng(0)
    for length in [1, 2, 3, 10, 29, 30, 31, 32, 60, 90] * 6:
        logits = draw.normal(size=(length, 2)).astype(np.float32)
        if draw.random() < 0.3:
            logits[draw.random(length) < 0.3] = np.nan  # cut off
        _, spans = brute_force(logits)
        found = best_span(logits)
        assert (found in spans) if spans else found is None
    logits = np.zeros((60, 2), np.float32)
    logits[5, 0] = logits[40, 1] = 9  # too far from each other
    assert best_span(logits) not in [(5, 40), None]


def test_validation_takes_the_best_span_of_each_window_too(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    items, _ = items_of(tmp_path, NAME, sample(NAME, 10, longest=45), tokenizer)
    batch = Collator(tokenizer, TASK, 2)(items)
    logits = 3 * torch.randn(*batch["input_ids"].shape, 2, generator=torch.Generator().manual_seed(1))
    found = TASK.found(logits, batch)
    for item, row, (start, end) in zip(items, logits, found.int().tolist(), strict=True):
        own = row[item["at"]].numpy()
        best = best_span(own)
        assert best is not None
        nothing = own[0].sum() >= own[best[0], 0] + own[best[1], 1]
        assert (start, end) == ((0, 0) if nothing else (item["at"][best[0]], item["at"][best[1]]))
    wide = np.pad(batch["labels"].numpy(), ((0, 0), (0, 3)), constant_values=IGNORED)
    right = batch["labels"][:, :2].numpy()
    assert TASK.validation(right, wide, NAMES) == {"exact_match": 1.0, "f1": 1.0}
    measured = TASK.validation(found.numpy(), wide, NAMES)
    assert measured["exact_match"] == pytest.approx(((found.numpy() == right).all(axis=1)).mean())
    overlap = []
    for (a, b), (c, d) in zip(found.int().tolist(), right.tolist(), strict=True):
        mine, theirs = set(range(a, b + 1)), set(range(c, d + 1))
        overlap.append(2 * len(mine & theirs) / (len(mine) + len(theirs)))
    assert measured["f1"] == pytest.approx(np.mean(overlap))


def test_answers_have_their_characters_and_there_may_be_none(tokenizer: PreTrainedTokenizerBase) -> None:
    pairs: list[Any] = [("good", "the film 手机 was goodbad"), ("bad", "it was bad")]
    spans = context_spans(tokenizer, pairs)
    logits = [np.zeros((1 + len(own), 2), np.float32) for own in spans]
    logits[0][3, 0] = logits[0][4, 1] = 4  # the third and the fourth token
    logits[1][0] = 5
    logits[1][3] = 2
    predicted = TASK.decode(pairs, logits, NAMES, tokenizer)
    assert predicted == [{"text": "手机", "start": 9, "end": 11}, {"text": "", "start": -1, "end": -1}]
    told = TASK.answers(pairs, predicted, logits, NAMES)
    assert [row["answer"] for row in told] == ["手机", ""]
    share = np.exp(4) / (np.exp(4) + len(spans[0]))
    assert told[0]["score"] == pytest.approx(share**2)
    assert told[1]["score"] == pytest.approx((np.exp(5) / (np.exp(5) + np.exp(2) + 2)) ** 2)
    assert [TASK.said(one, NAMES) for one in predicted] == ["手机", "(no answer)"]
    always = TASK.decode(pairs, logits, ALWAYS, tokenizer)
    assert [one["text"] for one in always] == ["手机", "bad"]
    assert TASK.answers(pairs, always, logits, ALWAYS)[1]["score"] == pytest.approx(
        (np.exp(2) / (np.exp(5) + np.exp(2) + 2)) ** 2
    )
    assert TASK.decode([("good", "")], [np.zeros((1, 2), np.float32)], ALWAYS, tokenizer)[0]["text"] == ""


def test_windows_are_merged_by_the_most_context_and_the_least_sure_of_no_answer(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model, reading = model_of(NAME, tokenizer), Reading(16, 4)
    pairs: list[Any] = [given for given, _ in sample(NAME, 12, 3, 40)]
    found = predict_rows(model, tokenizer, pairs, reading=reading)
    assert [len(one) for one in found] == TASK.positions(pairs, tokenizer)
    for pair, logits in zip(pairs, found, strict=True):
        (windows,) = TASK.windows(tokenizer, [pair], reading)
        own = [
            own_logits(model, tokenizer, NAME, one.features["input_ids"], one.features["token_type_ids"])
            .detach()
            .numpy()[list(one.at or [])]
            for one in windows
        ]
        least = min((one[0] for one in own), key=lambda ends: ends.sum())
        assert np.allclose(logits[0], least, atol=1e-5)
        for position in range(1, len(logits)):
            places = [
                (index, list(one.covers).index(position)) for index, one in enumerate(windows) if position in one.covers
            ]
            index, place = max(places, key=lambda at: (min(at[1], len(windows[at[0]].covers) - 1 - at[1]), -at[0]))
            assert np.allclose(logits[position], own[index][place], atol=1e-5)


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        ([{"text": "bad", "start": 4}], ["answer"]),
        ({"text": ["bad", "the"], "answer_start": [4, 0]}, ["answer"]),
        ([], ["no answer"]),
        ({"text": [], "answer_start": []}, ["no answer"]),
        (None, None),
    ],
)
def test_answers_are_read_in_either_form(answers: Any, names: list[str] | None) -> None:
    found = TASK.read({"question": "q", "context": "the bad", "answers": answers})
    assert (found.texts, found.names, found.faults) == (("q", "the bad"), names, ())
    if names == ["answer"]:
        assert found.value[0] == {"text": "bad", "start": 4}
        assert TASK.shown(found) in ("bad", "bad | the")


@pytest.mark.parametrize(
    "answers",
    [[{"text": "bad", "start": 3}], [{"text": "", "start": 0}], [{"text": "bad", "start": -3}], "bad", [{"start": 3}]],
)
def test_an_answer_that_is_not_there_is_a_fault(answers: Any) -> None:
    assert len(TASK.read({"question": "q", "context": "the bad", "answers": answers}).faults) == 1


def test_the_labels_tell_whether_there_may_be_no_answer() -> None:
    assert TASK.labels_of(["answer"]) == ALWAYS
    assert TASK.labels_of(["answer", "no answer"]) == NAMES
    targets = [[{"text": "The Bad", "start": 0}], []]
    predicted = [{"text": "bad!", "start": 0, "end": 3}, {"text": "x", "start": 0, "end": 1}]
    sums = np.asarray(TASK.counts(targets, predicted, NAMES).sum(axis=0))
    assert {name: float(value) for name, value in TASK.scores(sums, NAMES).items()} == {
        "f1": 0.5,
        "exact_match": 0.5,
        "has_answer_f1": 1.0,
        "has_answer_exact_match": 1.0,
        "no_answer_accuracy": 0.0,
    }
    assert set(TASK.scores(sums, ALWAYS)) == {"f1", "exact_match"}
    assert np.array_equal(TASK.right(targets, predicted), [True, False])
    assert TASK.agreement(predicted, [{"text": "the bad"}, {"text": "y"}]) == 0.5
