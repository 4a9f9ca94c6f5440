"""A relation between two marked entities: its markers are tokens, and its logits come from where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from components.ml.models.scoring import load_classifier, predict_logits
from components.ml.models.storage import load_base, save
from components.ml.rows.tokenised import Collator
from components.ml.tasks.relation_classification import MARKERS
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import IGNORED, Reading
from components.ml.training.objectives import Labels
from tests.components.ml.tasks.tools import LABELS, assert_micro_batches_add_up, items_of, model_of, own_logits, sample

NAME = "relation-classification"
TASK, NAMES = TASKS[NAME], LABELS[NAME]


@pytest.mark.parametrize("reading", [Reading(64), Reading(12, 4)], ids=["cut", "windows"])
def test_the_loss_is_that_of_labelled_and_of_taught_windows(
    reading: Reading, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows: Any = sample(NAME, 8, longest=20)
    rows[2] = (rows[2][0], None)
    taught = [place not in (1, 5) for place in range(8)]
    items, given = items_of(tmp_path, NAME, rows, tokenizer, reading, taught)
    owners = [row for row, (text, _) in enumerate(rows) for _ in TASK.windows(tokenizer, [text], reading)[0]]
    model = model_of(NAME, tokenizer)
    objective = Labels(task=TASK, alpha=0.6, beta=0.4, temperature=2.0)
    loss = assert_micro_batches_add_up(model, objective, Collator(tokenizer, TASK, 3), items)
    hard, soft = [], []
    for row, item in zip(owners, items, strict=True):
        logits = own_logits(model, tokenizer, NAME, item["input_ids"])
        if item["label"] != IGNORED:
            hard.append(-logits.log_softmax(dim=-1)[item["label"]])
        if (theirs := given[row]) is not None:
            p = (torch.from_numpy(theirs[0]) / 2).softmax(dim=-1)
            soft.append(4 * (p * (p.log() - (logits / 2).log_softmax(dim=-1))).sum())
    expected = 0.6 * torch.stack(soft).mean() + 0.4 * torch.stack(hard).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_logits_come_from_the_hidden_states_at_both_opening_markers(tokenizer: PreTrainedTokenizerBase) -> None:
    model: Any = model_of(NAME, tokenizer)
    text = "the <e2>good</e2> phone was <e1>bad film</e1> 很好"
    encoded = tokenizer(text, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0].tolist())
    assert [token for token in tokens if "e1" in token or "e2" in token] == ["<e2>", "</e2>", "<e1>", "</e1>"]
    with torch.inference_mode():
        hidden = model.bert(**encoded).last_hidden_state[0]
        both = torch.cat([hidden[tokens.index("<e1>")], hidden[tokens.index("<e2>")]])
        assert torch.allclose(model(**encoded).logits[0], model.classifier(both), atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_where_a_marker_was_cut_off_the_first_token_stands_in_on_whichever_side_rows_are_padded(
    side: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model: Any = model_of(NAME, tokenizer, "modernbert")  # whose positions padding doesn't move
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.padding_side = side
    texts = ["the <e1>good</e1> phone", "no markers at all", "the <e2>film</e2> and <e1>story</e1> of it " + "the " * 9]
    with torch.inference_mode():
        alone = [model(**tokenizer([text], return_tensors="pt")).logits[0] for text in texts]
        together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        hidden = model.base_model(**tokenizer([texts[1]], return_tensors="pt")).last_hidden_state[0]
        assert torch.allclose(alone[1], model.classifier(torch.cat([hidden[0], hidden[0]])), atol=1e-6)
    assert torch.allclose(torch.stack(alone), together, atol=1e-4)


def test_a_base_model_learns_the_markers_and_keeps_its_words(tiny_encoder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, before = load_base(tiny_encoder, NAMES)
    model, tokenizer = load_base(tiny_encoder, NAMES, task=TASK)
    ids = tokenizer.convert_tokens_to_ids(list(MARKERS))
    assert sorted(ids) == list(range(len(before), len(before) + 4))
    assert model.config.entity_markers == [ids[0], ids[2]]
    assert model.config.vocab_size == len(tokenizer) == len(before) + 4
    own = plain.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[: len(before)], own)
    save(model, tokenizer, tmp_path / "model")
    again, its_tokenizer = load_classifier(tmp_path / "model")
    texts = [text for text, _ in sample(NAME, 6)]
    expected = predict_logits(model.eval(), tokenizer, texts, max_length=32)
    assert np.array_equal(predict_logits(again, its_tokenizer, texts, max_length=32), expected)
    marked, markers = load_base(tmp_path / "model", NAMES, task=TASK)  # a base that knows them already
    assert len(markers) == len(tokenizer)
    assert marked.config.vocab_size == len(tokenizer)


def test_dropout_is_what_the_configuration_says(tokenizer: PreTrainedTokenizerBase) -> None:
    from components.ml.models.task_models import configure, new_model
    from tests.components.ml.tasks.tools import CONFIGS

    for wanted in (0.0, 0.3):
        config = CONFIGS["bert"]()
        config.hidden_dropout_prob = wanted
        model: Any = new_model(configure(config, TASK, NAMES))
        assert model.dropout.p == wanted


def test_entities_are_marked_in_the_text_or_by_spans() -> None:
    marked = "<e1>Ada</e1> was born in <e2>London</e2>"
    text = "Ada was born in London"
    for values in ({"text": marked}, {"text": text, "e1": [0, 3], "e2": [16, 22]}):
        found = TASK.read({**values, "label": "Born(e1,e2)"})
        assert (found.texts, found.names, found.faults) == ((marked,), ["Born(e1,e2)"], ())
    turned = TASK.read({"text": "张三生于北京", "e1": [4, 6], "e2": (0, 2), "label": "x"})
    assert turned.texts == ("<e2>张三</e2>生于<e1>北京</e1>",)
    beside = TASK.read({"text": "ab", "e1": [0, 1], "e2": [1, 2], "label": "x"})
    assert beside.texts == ("<e1>a</e1><e2>b</e2>",)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"text": "no markers"}, "without just one <e1>…</e1> and one <e2>…</e2>"),
        ({"text": "<e1>a</e1> <e1>b</e1> <e2>c</e2>"}, "without just one <e1>…</e1> and one <e2>…</e2>"),
        ({"text": "<e1>a <e2>b</e1> c</e2>"}, "with overlapping entity markers"),
        ({"text": "<e1> </e1> <e2>b</e2>"}, "with an empty entity"),
        ({"text": "<e1></e1> <e2>b</e2>"}, "with an empty entity"),
        ({"text": "abc", "e1": [0, 2], "e2": [1, 3]}, "with overlapping entities"),
        ({"text": "abc", "e1": [0, 4], "e2": [1, 3]}, "with entities that are no spans of the text"),
        ({"text": "abc", "e1": [0, 1], "e2": None}, "with entities that are no spans of the text"),
        ({"text": "abc", "e1": [True, 2], "e2": [2, 3]}, "with entities that are no spans of the text"),
    ],
)
def test_what_is_wrong_with_the_entities_is_told(values: dict[str, Any], what: str) -> None:
    assert [fault.what for fault in TASK.read({**values, "label": "x"}).faults] == [what]


def test_the_headline_is_the_directed_macro_f1() -> None:
    targets, predicted = [0, 0, 1, 2, 2], [0, 1, 1, 2, 0]
    found = TASK.scores(np.asarray(TASK.counts(targets, predicted, NAMES).sum(axis=0)), NAMES)
    # Born: 2 hits (0 and 1), 4 predicted, 3 actual; Other doesn't count.
    assert found[TASK.headline.key] == pytest.approx(2 * 2 / (4 + 3))
    assert found["accuracy"] == pytest.approx(3 / 5)
