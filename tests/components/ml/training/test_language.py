"""Language modelling: what is hidden, that it can be repeated, and that its loss is the tokens' mean."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from components.errors import UserError
from components.ml.rows.words import OUTSIDE, word_ids_of
from components.ml.tasks.task import IGNORED
from components.ml.training.heads import language_model
from components.ml.training.language import (
    LanguageCollator,
    LanguageObjective,
    NumberedRows,
    language_metrics,
)
from components.params.phases import Mask

SIZE: dict[str, Any] = {
    "vocab_size": 45,
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
RELATIVE = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZE),
    "roberta": RobertaConfig(**SIZE),
    "distilbert": DistilBertConfig(vocab_size=45, dim=16, n_layers=2, n_heads=2, hidden_dim=32),
    "deberta-v2": DebertaV2Config(**SIZE, **RELATIVE),
    "deberta-v2-new": DebertaV2Config(**SIZE, **RELATIVE, legacy=False),
    "modernbert": ModernBertConfig(**SIZE, cls_token_id=1, sep_token_id=2),
    "electra": ElectraConfig(**SIZE, embedding_size=8),
    "albert": AlbertConfig(**SIZE, embedding_size=8),
    "gpt2": GPT2Config(vocab_size=45, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2, pad_token_id=0),
    "llama": LlamaConfig(**SIZE, num_key_value_heads=2),
}
CAUSAL = ("gpt2", "llama")


class Rows:
    """Tokenised rows in memory."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items
        self.lengths = [len(item["input_ids"]) for item in items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_encoder)


def rows_of(tokenizer: PreTrainedTokenizerBase, count: int, length: int) -> Rows:
    """Rows of random ordinary tokens between [CLS] and [SEP]; every third token goes on a word."""
    draw = np.random.default_rng(0)
    items = []
    for _ in range(count):
        inside = draw.integers(5, 24, length).tolist()
        words = [OUTSIDE, *np.cumsum([index % 3 != 2 for index in range(length)]).tolist(), OUTSIDE]
        items.append({"input_ids": [2, *inside, 3], "word_ids": words, "label": 0})
    return Rows(items)


def collated(
    tokenizer: PreTrainedTokenizerBase, rows: Rows, mask: Mask, epoch: int = 0, fixed: bool = False, seed: int = 7
) -> dict[str, torch.Tensor]:
    numbered = NumberedRows(rows, fixed=fixed)
    numbered.set_epoch(epoch)
    return LanguageCollator(tokenizer, mask, seed)([numbered[index] for index in range(len(rows))])


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_tokens_are_hidden_in_berts_shares(
    tokenizer: PreTrainedTokenizerBase, probability: float, whole_words: bool
) -> None:
    rows = rows_of(tokenizer, 400, 24)
    before = torch.tensor([item["input_ids"] for item in rows.items])
    batch = collated(tokenizer, rows, Mask(probability=probability, whole_words=whole_words))
    chosen = batch["labels"] != IGNORED
    assert float(chosen.sum()) / (400 * 24) == pytest.approx(probability, abs=0.01)
    assert torch.equal(batch["labels"][chosen], before[chosen])
    seen = batch["input_ids"]
    assert torch.equal(seen[~chosen], before[~chosen])
    hidden = (seen[chosen] == tokenizer.mask_token_id).float().mean()
    kept = (seen[chosen] == before[chosen]).float().mean()
    assert float(hidden) == pytest.approx(0.8, abs=0.04)
    assert float(kept) == pytest.approx(0.1, abs=0.04)  # a replacement is the same token now and then
    assert float(1 - hidden - kept) == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("length", [1, 3, 5])
def test_the_share_is_right_on_average_for_short_rows_too(tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    batch = collated(tokenizer, rows_of(tokenizer, 3000, length), Mask(probability=0.15))
    share = float((batch["labels"] != IGNORED).sum()) / (3000 * length)
    assert share == pytest.approx(0.15, abs=0.02)


def test_special_tokens_and_padding_are_never_hidden_nor_put_in(tokenizer: PreTrainedTokenizerBase) -> None:
    long, short = rows_of(tokenizer, 100, 20), rows_of(tokenizer, 100, 4)
    short.items[0]["input_ids"][2] = tokenizer.unk_token_id
    batch = collated(tokenizer, Rows([*long.items, *short.items]), Mask(probability=0.9))
    assert batch["input_ids"].shape == batch["labels"].shape == (200, 22)
    labels = batch["labels"][batch["labels"] != IGNORED]
    assert not np.isin(labels, tokenizer.all_special_ids).any()
    special = np.isin(batch["input_ids"], tokenizer.all_special_ids)
    put_in = special & (batch["labels"] != IGNORED).numpy()
    assert set(batch["input_ids"][torch.from_numpy(put_in)].tolist()) == {tokenizer.mask_token_id}
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()


def test_whole_words_are_hidden_together(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = rows_of(tokenizer, 100, 23)
    labels = collated(tokenizer, rows, Mask(whole_words=True))["labels"]
    for item, row in zip(rows.items, labels, strict=True):
        words: dict[int, set[bool]] = {}
        for word, label in zip(item["word_ids"], row.tolist(), strict=True):
            words.setdefault(word, set()).add(label != IGNORED)
        assert words[OUTSIDE] == {False}
        assert all(len(fates) == 1 for fates in words.values())
    alone = collated(tokenizer, rows, Mask(whole_words=False))["labels"] != IGNORED
    assert not torch.equal(alone, labels != IGNORED)


def test_what_is_hidden_depends_on_seed_epoch_and_row_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    rows, mask = NumberedRows(rows_of(tokenizer, 12, 20)), Mask()
    collator = LanguageCollator(tokenizer, mask, 7)
    rows.set_epoch(3)
    whole = collator([rows[index] for index in range(12)])
    torch.manual_seed(99)
    np.random.seed(99)
    rows.set_epoch(0)
    collator([rows[5]])
    rows.set_epoch(3)
    parts = [LanguageCollator(tokenizer, mask, 7)([rows[index]]) for index in reversed(range(12))]
    for name in ("input_ids", "labels"):
        assert torch.equal(whole[name], torch.cat([part[name] for part in reversed(parts)]))
    rows.set_epoch(4)
    assert not torch.equal(whole["labels"], collator([rows[index] for index in range(12)])["labels"])
    rows.set_epoch(3)
    other = LanguageCollator(tokenizer, mask, 8)([rows[index] for index in range(12)])
    assert not torch.equal(whole["labels"], other["labels"])
    same = Rows([rows.rows.items[0]] * 8)
    assert len({tuple(row.tolist()) for row in collated(tokenizer, same, mask)["labels"]}) > 1


def test_validation_hides_the_same_in_every_epoch(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = rows_of(tokenizer, 10, 20)
    first, later = (collated(tokenizer, rows, Mask(), epoch, fixed=True) for epoch in (0, 5))
    assert all(torch.equal(first[name], later[name]) for name in first)
    assert not torch.equal(first["labels"], collated(tokenizer, rows, Mask(), 0)["labels"])


def test_chinese_characters_are_words_and_pieces_of_a_word_belong_together(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = ["good这手机 the好phone", "the film"]
    encoded = tokenizer(texts)
    words = word_ids_of(encoded, texts)
    assert words[1] == [OUTSIDE, 0, 1, OUTSIDE]
    tokens = encoded[0].tokens
    assert tokens == ["[CLS]", "good", "这", "手", "机", "the", "好", "phone", "[SEP]"]
    assert words[0] == [OUTSIDE, 0, 1, 2, 3, 4, 5, 6, OUTSIDE]
    pieces = word_ids_of(tokenizer(["goodbad the"]), ["goodbad the"])[0]
    assert pieces == [OUTSIDE, 0, 0, 1, OUTSIDE]


def test_chinese_characters_are_words_where_the_tokenizer_takes_bytes() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_alone = Tokenizer(models.BPE({token: index for index, token in enumerate(["<mask>", *alphabet])}, []))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_alone, mask_token="<mask>")
    text = "ab 中国x 好"
    words = word_ids_of(tokenizer([text]), [text])[0]
    assert words == [0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4]


def target(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(copy.deepcopy(CONFIGS[name]))
    model.eval()
    return model


def batch_for(name: str, rows: int = 6) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 45, (rows, 9), generator=draw)
    attended = torch.ones_like(ids)
    attended[0, 5:] = 0
    attended[1, :3] = 0  # padding may also come first
    ids[attended == 0] = 0
    guessed = (torch.rand(ids.shape, generator=draw) < 0.4) | (name in CAUSAL)
    labels = torch.where(guessed & (attended == 1), ids, IGNORED)
    return {"input_ids": ids, "attention_mask": attended, "labels": labels}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_and_its_gradient_are_those_of_all_logits(name: str) -> None:
    language, batch = language_model(target(name), None).eval(), batch_for(name)
    objective = LanguageObjective(name in CAUSAL)
    loss = objective.loss(language, batch, objective.counts(batch))
    loss.backward()
    gradients = {key: one.grad for key, one in language.named_parameters()}
    language.zero_grad()
    features = {key: batch[key] for key in ("input_ids", "attention_mask")}
    logits, labels = language(**features).logits, batch["labels"]
    if name in CAUSAL:
        logits, labels = logits[:, :-1], labels[:, 1:].masked_fill(batch["attention_mask"][:, :-1] == 0, IGNORED)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    expected.backward()
    assert float(objective.counts(batch)) == int((labels != IGNORED).sum())
    torch.testing.assert_close(loss, expected)
    for key, one in language.named_parameters():
        assert (one.grad is None) == (gradients[key] is None)
        if one.grad is not None:
            torch.testing.assert_close(gradients[key], one.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_micro_batches_give_the_full_batchs_gradient(name: str) -> None:
    language, batch = language_model(target(name), None).eval(), batch_for(name)
    objective = LanguageObjective(name in CAUSAL)
    counts = objective.counts(batch)
    objective.loss(language, batch, counts).backward()
    whole = [one.grad for one in language.parameters() if one.grad is not None]
    language.zero_grad()
    parts = [{key: value[start : start + 2] for key, value in batch.items()} for start in (0, 2, 4)]
    torch.testing.assert_close(sum(objective.counts(part) for part in parts), counts)
    for part in parts:
        objective.loss(language, part, counts).backward()
    for one, other in zip(whole, (p.grad for p in language.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_validations_sums_give_the_mean_over_tokens_however_the_rows_are_batched() -> None:
    language, batch = language_model(target("bert"), None).eval(), batch_for("bert")
    objective = LanguageObjective(False)
    with torch.no_grad():
        mean, sums = objective.validate(language, batch)
        parts = [{key: value[rows] for key, value in batch.items()} for rows in (slice(0, 1), slice(1, 6))]
        pieces = torch.cat([objective.validate(language, part)[1] for part in parts])
    assert sums.shape == (6, 2)
    torch.testing.assert_close(sums, pieces)
    measured = language_metrics(pieces.numpy(), batch["labels"].numpy())
    assert measured["loss"] == pytest.approx(float(mean), rel=1e-5)
    assert measured["perplexity"] == pytest.approx(float(mean.exp()), rel=1e-5)


def test_a_batch_with_nothing_hidden_has_loss_zero() -> None:
    language, batch = language_model(target("bert"), None), batch_for("bert")
    batch["labels"] = torch.full_like(batch["labels"], IGNORED)
    objective = LanguageObjective(False)
    loss = objective.loss(language, batch, objective.counts(batch))
    loss.backward()
    assert float(loss) == 0.0
    assert all(bool((one.grad == 0).all()) for one in language.parameters() if one.grad is not None)
    mean, sums = objective.validate(language, batch)
    assert float(mean) == 0.0
    assert not sums.any()


def test_adapters_in_the_language_model_are_in_the_targets_encoder() -> None:
    model, batch = target("bert"), batch_for("bert")
    language = language_model(model, None)
    features = {key: batch[key] for key in ("input_ids", "attention_mask")}
    before = model(**features).logits
    adapted = get_peft_model(language, LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    objective = LanguageObjective(False)
    objective.loss(adapted, batch, objective.counts(batch)).backward()
    assert all(one.grad is not None for key, one in adapted.named_parameters() if "lora_" in key)
    adapted.eval().merge_and_unload()
    assert not any("lora" in key for key in model.state_dict())
    assert not torch.equal(model.eval()(**features).logits, before)


def test_causal_labels_are_the_tokens_themselves(tokenizer: PreTrainedTokenizerBase) -> None:
    long, short = rows_of(tokenizer, 2, 6), rows_of(tokenizer, 1, 3)
    rows = NumberedRows(Rows([*long.items, *short.items]))
    batch = LanguageCollator(tokenizer, Mask(), 0, causal=True)([rows[index] for index in range(3)])
    attended = batch["attention_mask"] == 1
    assert torch.equal(batch["labels"][attended], batch["input_ids"][attended])
    assert (batch["labels"][~attended] == IGNORED).all()
    assert not (batch["input_ids"] == tokenizer.mask_token_id).any()


def test_a_tokenizer_without_a_mask_token_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.mask_token = None
    with pytest.raises(UserError, match="has none") as caught:
        LanguageCollator(plain, Mask(), 0)
    assert caught.value.kind == "parameters"
    LanguageCollator(plain, Mask(), 0, causal=True)
