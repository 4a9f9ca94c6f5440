"""Windows: nothing is read twice, nothing is left out, and what they say is put together as it should be."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.models.scoring import predict_logits, predict_rows
from components.ml.tasks.question_answering import context_spans
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading, Window
from components.ml.tasks.windows import best_covered, pooled
from tests.components.ml.tasks.tools import model_of, sample, words

WORDS, ANSWERS, TEXTS = (
    TASKS[f"{name}"] for name in ("token-classification", "question-answering", "text-classification")
)
STRIDES = [None, 0, 1, 3, 7]


def rows_of_words() -> list[list[str]]:
    """Rows of 0 to 40 words, and words that are longer than a window."""
    draw = random.Random(5)
    rows = [words(draw, count, count) for count in [*range(12), 20, 30, 40]]
    return [*rows, ["the", "goodbad" * 9, "手机" * 6, "film"], ["goodbad" * 9], ["goodbad" * 4, "goodbad" * 4, "it"]]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("length", [10, 11])
def test_each_word_is_covered_by_its_first_token_and_with_a_stride_all_words_are(
    tokenizer: PreTrainedTokenizerBase, stride: int | None, length: int
) -> None:
    rows, room = rows_of_words(), length - 2
    whole = tokenizer(rows, is_split_into_words=True, add_special_tokens=False)
    found = WORDS.windows(tokenizer, rows, Reading(length, stride))
    assert len(found) == len(rows)
    for row, (tokens, windows) in enumerate(zip(rows, found, strict=True)):
        ids, owners = whole["input_ids"][row], whole.word_ids(row)
        firsts = {place for place, word in enumerate(owners) if place == 0 or owners[place - 1] != word}
        seen: list[int] = []
        for index, window in enumerate(windows):
            start = 0 if stride is None else index * (room - stride)
            assert list(window.features["input_ids"])[1:-1] == ids[start : start + room]
            expected = [place for place in range(start, min(start + room, len(ids))) if place in firsts]
            assert list(window.at or []) == [place - start + 1 for place in expected]
            assert list(window.covers) == [owners[place] for place in expected]
            assert len(set(window.covers)) == len(window.covers)
            seen += window.covers
        assert stride is None or sorted(set(seen)) == list(range(len(tokens)))
        assert stride is not None or len(windows) == 1
        assert stride != 0 or len(seen) == len(tokens)


@pytest.mark.parametrize("stride", [*STRIDES[:4], 5])
def test_windows_of_a_context_are_parts_of_the_context_that_is_not_cut(
    tokenizer: PreTrainedTokenizerBase, stride: int | None
) -> None:
    rows = [given for longest in (1, 5, 12, 40) for given, _ in sample("question-answering", 10, longest, longest)]
    rows += [("good film", ""), ("", "good film the"), ("the " * 40, "很好 the film was good " * 3)]
    spans = context_spans(tokenizer, rows)
    length = 18
    for row, (given, windows) in enumerate(
        zip(rows, ANSWERS.windows(tokenizer, rows, Reading(length, stride)), strict=True)
    ):
        seen = set()
        question = tokenizer(given[0], add_special_tokens=False)["input_ids"][: (length - 3) // 2]
        for window in windows:
            ids = list(window.features["input_ids"])
            assert len(ids) <= length
            assert ids[: len(question) + 2] == [2, *question, 3]
            assert window.at is not None
            assert (window.at[0], window.covers[0], window.spans[0]) == (0, 0, (-1, -1))
            assert list(window.at[1:]) == list(range(len(question) + 2, len(ids) - 1))
            own = list(window.covers)[1:]
            assert own == list(range(own[0], own[0] + len(own))) if own else True
            assert [spans[row][position - 1] for position in own] == list(window.spans)[1:]
            for place, (first, end) in zip(window.at[1:], list(window.spans)[1:], strict=True):
                token = tokenizer.convert_ids_to_tokens(ids[place]).removeprefix("##")
                assert token in (given[1][first:end], "[UNK]")
            seen |= {0, *own}
        assert ANSWERS.positions([given], tokenizer) == [1 + len(spans[row])]
        assert stride is None or seen == set(range(1 + len(spans[row])))
        assert stride is not None or len(windows) == 1


def test_a_stride_that_leaves_no_room_for_anything_new_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    for task, given, stride in (
        (TEXTS, "good " * 30, 14),
        (WORDS, ["good"] * 30, 14),
        (ANSWERS, ("the " * 30, "good " * 30), 7),
    ):
        with pytest.raises(UserError, match=f"stride is {stride}, but windows of 16 tokens hold {stride} of a text"):
            task.windows(tokenizer, [given], Reading(16, stride))
        assert len(task.windows(tokenizer, [given], Reading(16, stride - 1))[0]) > 1


@pytest.mark.parametrize("name", ["text-classification", "token-classification", "question-answering"])
def test_windows_need_a_fast_tokenizer(
    name: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    ((given, _),) = sample(name, 1)
    with pytest.raises(UserError, match="a slow one"):
        TASKS[name].windows(tokenizer, [given], Reading(16, 4))
    if name != "text-classification":
        with pytest.raises(UserError, match="a slow one"):
            TASKS[name].windows(tokenizer, [given], Reading(16))


@pytest.mark.parametrize("stride", [0, 3])
@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("name", ["text-classification", "multi-label-classification", "regression"])
def test_a_long_texts_logits_are_pooled_from_those_of_its_windows(
    name: str, pooling: str, stride: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    model, draw = model_of(name, tokenizer), random.Random(1)
    known = ["good", "bad", "film", "好", "坏", "手"]  # one token each
    texts = [draw.choices(known, k=count) for count in (1, 8, 9, 20, 33)]
    found = predict_rows(model, tokenizer, [" ".join(text) for text in texts], reading=Reading(10, stride, pooling))
    for text, logits in zip(texts, found, strict=True):
        starts = [0]
        while starts[-1] + 8 < len(text):
            starts.append(starts[-1] + 8 - stride)
        parts = [" ".join(text[start : start + 8]) for start in starts]
        own = predict_logits(model, tokenizer, parts, max_length=10)
        assert logits.shape == (1, own.shape[1])
        assert np.allclose(logits[0], own.mean(axis=0) if pooling == "mean" else own.max(axis=0), atol=1e-5)


def test_pairs_are_cut_even_where_there_is_a_stride(tokenizer: PreTrainedTokenizerBase) -> None:
    (windows,) = TEXTS.windows(tokenizer, [("good " * 30, "bad " * 30)], Reading(16, 4))
    assert [len(window.features["input_ids"]) for window in windows] == [16]


def test_pooling_keeps_the_bits_of_a_row_with_one_window() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    assert pooled([logits[0]], Reading(8)).tobytes() == logits[0].tobytes()
    assert pooled(list(logits), Reading(8)).dtype == np.float32
    assert pooled(list(logits), Reading(8))[0] == pytest.approx(logits.mean(axis=0))
    assert pooled(list(logits), Reading(8, pooling="max"))[0] == pytest.approx(logits.max(axis=0))


def test_a_position_is_judged_by_the_window_with_the_most_around_it() -> None:
    draw = np.random.default_rng(1)
    for _ in range(50):
        room, stride, positions = 9, int(draw.integers(0, 8)), int(draw.integers(1, 40))
        starts = [0]
        while starts[-1] + room < positions:
            starts.append(starts[-1] + room - stride)
        covers = [list(range(start, min(start + room, positions))) for start in starts]
        windows = [Window({}, at=range(len(own)), covers=own) for own in covers]
        logits = [draw.normal(size=(len(own), 2)).astype(np.float32) for own in covers]
        found = best_covered(windows, logits, positions + 2, 2)
        assert np.isnan(found[positions:]).all()
        for position in range(positions):
            chosen = [index for index, own in enumerate(covers) if position in own]
            around = {index: min(position - covers[index][0], covers[index][-1] - position) for index in chosen}
            best = max(chosen, key=lambda index: (around[index], -index))
            assert (found[position] == logits[best][position - covers[best][0]]).all()


def test_a_window_without_a_position_changes_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    model = model_of("token-classification", tokenizer)
    rows: list[Any] = [["goodbad" * 9, "film"], ["goodbad" * 9], [], ["the"]]
    windows = WORDS.windows(tokenizer, rows, Reading(10, 0))
    assert any(window.at == [] for window in windows[0])
    found = predict_rows(model, tokenizer, rows, reading=Reading(10, 0))
    assert [one.shape for one in found] == [(2, 3), (1, 3), (0, 3), (1, 3)]
    assert all(np.isfinite(one).all() for one in found)
