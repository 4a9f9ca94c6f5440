"""Other heads share the target's very encoder, whatever the architecture, and leave the target as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    CanineConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from components.errors import UserError
from components.ml.models.scoring import load_classifier
from components.ml.models.storage import load_base, save
from components.ml.tasks.table import TASKS
from components.ml.training.heads import head_parameters, is_causal, language_model, task_model

SIZE: dict[str, Any] = {
    "vocab_size": 40,
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
MASKED: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZE),
    "bert-untied": BertConfig(**SIZE, tie_word_embeddings=False),
    "roberta": RobertaConfig(**SIZE),
    "xlm-roberta": XLMRobertaConfig(**SIZE),
    "distilbert": DistilBertConfig(
        vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32
    ),
    "deberta-v2": DebertaV2Config(**SIZE, **RELATIVE),
    "deberta-v2-new": DebertaV2Config(**SIZE, **RELATIVE, legacy=False),
    "modernbert": ModernBertConfig(**SIZE, cls_token_id=1, sep_token_id=2),
    "electra": ElectraConfig(**SIZE, embedding_size=8),
}
CAUSAL: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
    "llama": LlamaConfig(**SIZE, num_key_value_heads=2),
}
ALL = MASKED | CAUSAL
LABELS = ["negative", "positive"]
UNSEEN = 39
"""A word that the texts lack."""


def target(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(copy.deepcopy(config))
    model.eval()
    return model


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, UNSEEN, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 4:] = ids[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", ALL)
def test_training_the_language_model_trains_the_targets_encoder_and_nothing_else_of_it(name: str) -> None:
    model = target(ALL[name])
    heads = head_parameters(model)
    before = copy.deepcopy(model.state_dict())
    language = language_model(model, None)
    assert language.base_model is model.base_model
    assert is_causal(model) == (name in CAUSAL)
    logits = language(**batch()).logits
    assert logits.shape == (3, 7, 40)
    optimiser = torch.optim.SGD(language.parameters(), lr=0.1)
    logits[batch()["attention_mask"] == 1].logsumexp(dim=-1).sum().backward()
    optimiser.step()
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[key], after[key]) for key in heads)
    encoder = [key for key in after if key not in heads]
    assert any(not torch.equal(before[key], after[key]) for key in encoder if "embed" in key or "wte" in key)
    assert any(not torch.equal(before[key], after[key]) for key in encoder if "embed" not in key and "wte" not in key)


@pytest.mark.parametrize("name", ALL)
def test_words_are_predicted_with_the_targets_embeddings_where_the_config_ties_them(name: str) -> None:
    model = target(ALL[name])
    language = language_model(model, None)
    sizes = {tuple(language.get_parameter(key).shape) for key in head_parameters(language)}
    tied = model.config.tie_word_embeddings
    assert ((40, 16) not in sizes) == tied  # a decoder of its own, or none
    before = language(**batch()).logits
    with torch.no_grad():
        model.get_input_embeddings().weight[UNSEEN] += 1.0
    assert torch.equal(language(**batch()).logits[..., UNSEEN], before[..., UNSEEN]) != tied


@pytest.mark.parametrize("kind", ["text-classification", "token-classification"])
@pytest.mark.parametrize("name", ALL)
def test_another_task_has_its_own_head_over_the_same_encoder(name: str, kind: str) -> None:
    model = target(ALL[name])
    before = model(**batch()).logits
    other = task_model(model, TASKS[kind], ["a", "b", "c"])
    assert other.base_model is model.base_model
    assert other.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.num_labels == 2
    assert other(**batch()).logits.shape == ((3, 3) if kind == "text-classification" else (3, 7, 3))
    own = {id(one) for one in model.parameters()} - {id(one) for one in model.base_model.parameters()}
    assert not own & {id(one) for one in other.parameters()}
    with torch.no_grad():
        for key in head_parameters(other):
            other.get_parameter(key).fill_(0.5)
    assert torch.equal(model(**batch()).logits, before)


def test_the_language_models_head_is_the_base_models_where_it_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    whole = AutoModelForMaskedLM.from_config(BertConfig(**SIZE))
    with torch.no_grad():
        whole.cls.predictions.bias.normal_()
    whole.save_pretrained(tmp_path)
    shallow = target(BertConfig(**(SIZE | {"num_hidden_layers": 1})))
    language = language_model(shallow, tmp_path)
    assert "taken from the base model" in capsys.readouterr().out
    for key in head_parameters(language):
        assert torch.equal(language.get_parameter(key), whole.get_parameter(key))
    assert len(language.base_model.encoder.layer) == 1


@pytest.mark.parametrize("case", ["no head", "another width", "another family", "no folder"])
def test_a_head_that_the_base_model_lacks_is_drawn_under_the_seed(
    case: str, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder: Path | None = tmp_path
    if case == "no head":
        model, folder = load_base(tiny_encoder, LABELS)[0], tiny_encoder
    else:
        model = target(BertConfig(**SIZE))
        other = RobertaConfig(**SIZE) if case == "another family" else BertConfig(**(SIZE | {"hidden_size": 8}))
        AutoModelForMaskedLM.from_config(other).save_pretrained(tmp_path)
        folder = None if case == "no folder" else tmp_path

    def head(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        language = language_model(model, folder)
        return {key: language.get_parameter(key).detach() for key in head_parameters(language)}

    first, again, another = head(1), head(1), head(2)
    told = capsys.readouterr()
    assert "drawn at random" in told.out
    assert "corrupted" not in told.err
    weights = [key for key in first if key.endswith("dense.weight")]
    assert weights
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], another[key]) for key in weights)
    assert all(bool(first[key].std() > 0) for key in weights)


def test_a_causal_head_of_its_own_comes_from_the_base_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = AutoModelForCausalLM.from_config(LlamaConfig(**SIZE, num_key_value_heads=2))
    whole.save_pretrained(tmp_path)
    language = language_model(target(CAUSAL["llama"]), tmp_path)
    assert torch.equal(language.get_output_embeddings().weight, whole.get_output_embeddings().weight)
    assert "taken from the base model" in capsys.readouterr().out
    language_model(target(CAUSAL["gpt2"]), None)
    assert "the word embeddings themselves" in capsys.readouterr().out


def test_the_target_is_saved_as_an_ordinary_model_afterwards(tiny_encoder: Path, tmp_path: Path) -> None:
    model, _ = load_base(tiny_encoder, LABELS)
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    language_model(model, tiny_encoder)
    task_model(model, TASKS["token-classification"], ["o", "x"])
    save(model, tokenizer, tmp_path / "model")
    again, _ = load_classifier(tmp_path / "model")
    assert torch.equal(again(**batch()).logits, model.eval()(**batch()).logits)


def test_an_architecture_without_the_head_is_refused_by_name() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    canine = target(CanineConfig(**small, num_hash_functions=1, num_hash_buckets=32, max_position_embeddings=32))
    with pytest.raises(UserError, match=r"canine .* has no language model"):
        language_model(canine, None)
    bart = target(
        BartConfig(
            **{"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1},
            **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32},
            **{"decoder_ffn_dim": 32, "pad_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 32},
        )
    )
    for kind in ("text-classification", "token-classification"):
        with pytest.raises(UserError, match=f"bart .* has no head for {kind}"):
            task_model(bart, TASKS[kind], ["a", "b"])
    with pytest.raises(UserError, match=r"bart .* has no language model"):
        language_model(bart, None)


def test_a_causal_head_that_sees_the_tokens_to_come_is_refused() -> None:
    xlnet = target(XLNetConfig(vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=32))
    with pytest.raises(UserError, match=r"xlnet .* causal attention"):
        language_model(xlnet, None)
