"""Texts and pairs of texts: read, tokenised and told apart alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from components.ml.models.scoring import predict_logits
from components.ml.rows.inputs import encode, input_columns, input_key, inputs_of, shown
from components.ml.rows.tokenised import Collator, Source, first_inputs, tokenise
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading

PAIRS = [("good phone", "这个手机很好"), ("bad", "a film that was bad and awful"), ("", "story")]
TEXTS: dict[str, Any] = {"task": TASKS["text-classification"], "classes": 2}


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_encoder)


def test_rows_are_pairs_where_there_is_a_second_text(tiny_splits: Path, paired_splits: Path) -> None:
    assert input_columns(tiny_splits / "train") == ["text"]
    assert input_columns(paired_splits / "train") == ["text", "text_pair"]
    table = pq.read_table(paired_splits / "validation")
    expected = list(zip(table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True))
    assert inputs_of(table) == first_inputs(paired_splits / "validation") == expected
    assert inputs_of(pa.table({"text": ["好"]})) == ["好"]


def test_a_pair_is_one_input_with_two_types_of_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(tokenizer, PAIRS)
    assert encoded["input_ids"] == tokenizer([a for a, _ in PAIRS], [b for _, b in PAIRS])["input_ids"]
    assert set(encoded["token_type_ids"][0]) == {0, 1}
    assert encode(tokenizer, ["a text"])["input_ids"] == tokenizer(["a text"])["input_ids"]


def test_of_a_pair_that_is_too_long_the_longer_text_is_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    (cut,) = encode(tokenizer, [("good phone", "bad " * 50)], truncation=True, max_length=12)["input_ids"]
    assert len(cut) == 12
    assert cut[:4] == tokenizer("good phone")["input_ids"]


def test_no_two_inputs_share_a_key() -> None:
    inputs = ["abc", "a", ("a", "bc"), ("ab", "c"), ("bc", "a"), ("", "abc"), ("abc", ""), "", "1 abc"]
    assert len({input_key(each) for each in inputs}) == len(inputs)


def test_people_see_both_texts() -> None:
    assert shown(("前提", "结论")) == "前提 ⟷ 结论"
    assert shown("text") == "text"


def test_tokenised_pairs_keep_their_types_to_the_batch(
    paired_splits: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = tokenise([Source(paired_splits / "train")], tokenizer, tmp_path / "rows.arrow", reading=Reading(32), **TEXTS)
    inputs = first_inputs(paired_splits / "train", 8)
    batch = Collator(tokenizer, **TEXTS)([rows[index] for index in range(8)])
    expected = encode(tokenizer, inputs, padding=True, return_tensors="pt")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert torch.equal(batch[name], expected[name]), name


def test_words_of_the_second_text_are_others_than_those_of_the_first(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    from tests.conftest import write_pairs

    split = write_pairs(tmp_path / "train", [("good", "bad film", 0), ("很好", "坏 phone", 1)])
    rows = tokenise([Source(split)], tokenizer, tmp_path / "rows.arrow", reading=Reading(32), words=True, **TEXTS)
    assert rows[0]["word_ids"] == [-1, 0, -1, 1, 2, -1]
    assert rows[1]["word_ids"] == [-1, 0, 1, -1, 2, 3, -1]


def test_pairs_are_scored_as_the_model_reads_them(tiny_encoder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder).eval()
    for weights in (model.classifier.weight, model.bert.embeddings.token_type_embeddings.weight):
        torch.nn.init.normal_(weights)
    with torch.inference_mode():
        expected = [model(**encode(tokenizer, [pair], return_tensors="pt")).logits[0].numpy() for pair in PAIRS]
    found = predict_logits(model, tokenizer, PAIRS, max_length=32)
    assert np.allclose(found, expected, atol=1e-5)
    swapped = predict_logits(model, tokenizer, [(second, first) for first, second in PAIRS], max_length=32)
    assert np.abs(found - swapped).max() > 1e-4
