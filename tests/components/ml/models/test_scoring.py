"""Scoring: a text's logits are its own, whatever is scored with it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from components.ml.models import scoring
from components.ml.models.scoring import predict_logits, score
from components.ml.tasks.task import Reading

Classifier = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def classifier(tiny_encoder: Path) -> Classifier:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=3)
    return model.eval(), AutoTokenizer.from_pretrained(tiny_encoder)


@pytest.fixture(scope="module")
def many(texts: Callable[[int, int], list[tuple[str, str]]]) -> list[str]:
    """Texts of 3 to 60 tokens, some cut at 32."""
    draw = random.Random(3)
    rows = [text for text, _ in texts(120, 7)]
    return rows + [" ".join(draw.sample(rows, 4)) for _ in range(40)]


def alone(classifier: Classifier, text: str) -> np.ndarray:
    """The logits straight from the model, one text without padding."""
    model, tokenizer = classifier
    with torch.inference_mode():
        encoded = tokenizer([text], truncation=True, max_length=32, return_tensors="pt")
        return np.asarray(model(**encoded).logits.numpy()[0])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_every_text_gets_its_own_logits_in_input_order(
    classifier: Classifier, many: list[str], batch_size: int
) -> None:
    logits = predict_logits(*classifier, many, max_length=32, batch_size=batch_size)
    assert logits.dtype == np.float32
    assert np.allclose(logits, [alone(classifier, text) for text in many], atol=1e-5)


@pytest.mark.parametrize(
    ("wide", "threads", "dtype"),
    [(16, 1, torch.float32), (16, 1, torch.bfloat16), (384, 1, torch.float32), (384, 2, torch.float32)],
)
def test_logits_are_the_same_bits_whatever_is_scored_beside(
    classifier: Classifier, many: list[str], dtype: torch.dtype, threads: int, wide: int
) -> None:
    model, tokenizer = classifier
    if wide == 384:  # a real one's width, where kernels differ
        torch.manual_seed(2)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=wide,
            num_hidden_layers=1,
            num_attention_heads=12,
            intermediate_size=4 * wide,
            max_position_embeddings=64,
        )
        model = BertForSequenceClassification(config).eval()
    many = many[::4]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = model.to(dtype)
        whole = predict_logits(model, tokenizer, many, max_length=32, batch_size=11)
        for seed in range(3):
            order = random.Random(seed).sample(range(len(many)), k=(len(many), 21, 1)[seed])
            part = predict_logits(model, tokenizer, [many[place] for place in order], max_length=32, batch_size=11)
            assert part.tobytes() == whole[order].tobytes()
    finally:
        torch.set_num_threads(before)
        model.to(torch.float32)


def test_a_batch_has_one_shape_for_each_length_and_some_padding_or_none(
    classifier: Classifier, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = classifier
    shapes: dict[int, set[int]] = {}

    def watch(**features: torch.Tensor) -> object:
        mask = features["attention_mask"]
        shapes.setdefault(mask.shape[1], set()).add(mask.shape[0])
        full = mask.all(dim=1)
        assert full.all() or not full.any()  # else a text's kernels would depend on its neighbours
        return forward(**features)

    forward = model.forward
    monkeypatch.setattr(model, "forward", watch)
    predict_logits(model, tokenizer, many, max_length=30, batch_size=16)
    assert len(shapes) > 2
    assert all(len(rows) == 1 for rows in shapes.values())
    assert max(shapes) == 30  # never longer than asked for, though that's no multiple of 8


def test_the_padding_side_of_the_tokenizer_is_kept(
    classifier: Classifier, tiny_encoder: Path, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = classifier
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder, padding_side="left")
    masks: list[torch.Tensor] = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: masks.append(given["attention_mask"]) or forward(**given))
    predict_logits(model, tokenizer, many[:20], max_length=32)
    assert masks
    assert all((mask.diff(dim=1) >= 0).all() for mask in masks)


def test_texts_that_come_one_by_one_wait_for_company(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "TOKENISED_AT_ONCE", 4)
    given = ((str(place), "good phone") for place in range(21))
    batches = [tags for tags, _ in score(*classifier, given, reading=Reading(32), batch_size=8)]
    assert [len(tags) for tags in batches] == [8, 8, 5]
    assert [tag for tags in batches for tag in tags] == [str(place) for place in range(21)]


def test_padded_lengths_waste_little() -> None:
    for length in range(64, 600):
        padded = scoring._padded(length, 10_000, 64)
        assert length < padded <= 1.26 * length
    assert scoring._padded(17, 17, 64) == 17


def test_a_shape_in_which_places_matter_is_not_used(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = classifier
    forward = model.forward

    def uneven(**features: torch.Tensor) -> object:
        """As a kernel may be: in batches of more than 4, the last row's sums come out a little different."""
        result = forward(**features)
        if len(result.logits) > 4:
            result.logits[-1] *= 1 + 1e-6
        return result

    monkeypatch.setattr(model, "forward", uneven)
    texts = [(place, "good phone") for place in range(16)]
    sizes = {
        checked: [
            len(tags) for tags, _ in score(*classifier, texts, reading=Reading(32), batch_size=8, checked=checked)
        ]
        for checked in (True, False)
    }
    assert sizes == {True: [4, 4, 4, 4], False: [8, 8]}


def test_no_texts_have_no_logits(classifier: Classifier) -> None:
    assert predict_logits(*classifier, [], max_length=32).shape == (0, 3)


def test_a_decoder_that_pads_on_the_left_is_scored_alike(tiny_encoder: Path, many: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder, padding_side="left")
    torch.manual_seed(4)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.num_labels = 3
    decoder = Qwen2ForSequenceClassification(config).eval()
    whole = predict_logits(decoder, tokenizer, many, max_length=32, batch_size=16)
    assert np.allclose(whole, [alone((decoder, tokenizer), text) for text in many], atol=1e-5)
    backwards = reversed(list(enumerate(many)))
    for places, logits in score(decoder, tokenizer, backwards, reading=Reading(32), batch_size=16, checked=True):
        assert whole[places].tobytes() == np.concatenate(logits).tobytes()
