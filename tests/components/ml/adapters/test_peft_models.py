"""Every method of peft trains on every architecture, or is refused in words before anything trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from components.errors import UserError
from components.ml.adapters.peft_models import (
    add_adapters,
    can_merge,
    check_length,
    merged,
    virtual_tokens,
    without_adapters,
)
from components.ml.models.storage import load_base
from components.ml.training.dropout import dropout
from components.ml.training.trainable import head_modules
from components.params.trainable import (
    Adapters,
    Ia3,
    Ia3Settings,
    Lora,
    LoraSettings,
    PrefixTuning,
    PromptSettings,
    PromptTuning,
    PTuning,
    PTuningSettings,
)

BERT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
RELATIVE: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertConfig(**BERT, max_position_embeddings=64),
    "roberta": lambda: transformers.RobertaConfig(**BERT, max_position_embeddings=66),
    "distilbert": lambda: transformers.DistilBertConfig(
        dim=16, hidden_dim=32, n_layers=2, n_heads=2, vocab_size=40, max_position_embeddings=64
    ),
    "deberta-v2": lambda: transformers.DebertaV2Config(**BERT, **RELATIVE, max_position_embeddings=64),
    "modernbert": lambda: transformers.ModernBertConfig(
        **BERT, **SPECIAL, max_position_embeddings=64, cls_token_id=1, sep_token_id=2
    ),
    "albert": lambda: transformers.AlbertConfig(**BERT, embedding_size=8, max_position_embeddings=64),
    "gpt2": lambda: transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=64, **SPECIAL),
    "llama": lambda: transformers.LlamaConfig(**BERT, **SPECIAL, max_position_embeddings=64, num_key_value_heads=1),
}
MERGEABLE: dict[str, Adapters] = {
    "lora": Lora(lora=LoraSettings(r=2, alpha=8)),
    "dora": Lora(lora=LoraSettings(r=2, alpha=8, dora=True)),
    "rslora": Lora(lora=LoraSettings(r=3, alpha=8, rslora=True)),
    "ia3": Ia3(ia3=Ia3Settings()),
}
PROMPTS: dict[str, Adapters] = {
    "prompt_tuning": PromptTuning(prompt_tuning=PromptSettings(tokens=4)),
    "prefix_tuning": PrefixTuning(prefix_tuning=PromptSettings(tokens=4)),
    "p_tuning": PTuning(p_tuning=PTuningSettings(tokens=4, hidden=8)),
}
METHODS = MERGEABLE | PROMPTS
REFUSED = {(name, "prefix_tuning") for name in ("distilbert", "deberta-v2", "modernbert", "albert")}
REFUSED |= {(name, method) for name in ("gpt2", "llama") for method in ("prompt_tuning", "p_tuning")}
PAIRS = [(name, method) for name in CONFIGS for method in METHODS]
IDS = torch.tensor([[3, 5, 6, 7, 8], [3, 9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.initializer_range = 0.3  # so that logits differ enough to be told apart
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    model.eval()
    return model


@pytest.fixture
def bert() -> PreTrainedModel:
    return build("bert")


def config_of(model: PeftModel) -> Any:
    return model.peft_config["default"]


def logits(model: nn.Module) -> Any:
    """Of two texts, the second of them padded: a tensor of shape (2, 2)."""
    model.eval()
    ids = IDS.masked_fill(MASK == 0, model.config.pad_token_id)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=MASK).logits


def train(model: PeftModel, steps: int = 6, lr: float = 0.01) -> list[float]:
    """The loss before each of some steps, in evaluation mode, so that only the steps move it."""
    model.eval()
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=lr)
    ids = IDS.masked_fill(MASK == 0, model.config.pad_token_id)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(input_ids=ids, attention_mask=MASK).logits, torch.tensor([0, 1]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("name", "method"), [pair for pair in PAIRS if pair not in REFUSED])
def test_training_moves_adapters_and_head_and_nothing_else(name: str, method: str) -> None:
    model = build(name)
    base = {key: value.clone() for key, value in model.state_dict().items()}
    adapted = add_adapters(model, METHODS[method], "base")
    before = {key: value.detach().clone() for key, value in adapted.named_parameters()}
    losses = train(adapted)
    assert losses[-1] < losses[0]
    for key, value in adapted.named_parameters():
        assert torch.equal(before[key], value) != value.requires_grad, key
    kept = without_adapters(adapted).state_dict()
    assert kept.keys() == base.keys()
    assert all(torch.equal(base[key], kept[key]) for key in base)
    trained = {key.split(".modules_to_save")[0].rsplit(".")[-1] for key in before if ".modules_to_save." in key}
    assert trained == set(head_modules(build(name)))


@pytest.mark.parametrize(("name", "method"), sorted(REFUSED))
def test_what_an_architecture_cannot_do_is_refused_in_words(name: str, method: str) -> None:
    model = build(name)
    with pytest.raises(UserError, match=f"{method} isn't possible with {type(model).__name__}: .*") as caught:
        add_adapters(model, METHODS[method], "base")
    assert caught.value.kind == "parameters"
    assert "lora" in caught.value.remedy


@pytest.mark.parametrize(("name", "method"), [(name, method) for name in CONFIGS for method in MERGEABLE])
def test_the_merged_model_has_the_adapters_logits_and_the_plain_models_weights(name: str, method: str) -> None:
    model = build(name)
    names, untrained = set(model.state_dict()), logits(model)
    adapted = add_adapters(model, MERGEABLE[method], "base")
    train(adapted)
    expected = logits(adapted)
    assert (expected - untrained).abs().max() > 1e-3
    plain = merged(adapted)
    assert not isinstance(plain, PeftModel)
    assert set(plain.state_dict()) == names
    assert torch.allclose(logits(plain), expected, atol=1e-4)


@pytest.mark.parametrize("method", sorted(PROMPTS))
def test_prompts_cannot_be_merged(bert: PreTrainedModel, method: str) -> None:
    adapted = add_adapters(bert, PROMPTS[method], "base")
    assert not can_merge(adapted)
    with pytest.raises(TypeError, match="can't be merged"):
        merged(adapted)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_same_seed_gives_the_same_adapters_and_the_trial_leaves_no_trace(method: str) -> None:
    states, draws = [], []
    for _ in range(2):
        model = build("bert").train()
        torch.manual_seed(1)
        adapted = add_adapters(model, METHODS[method], "base")
        assert all(module.training for module in model.modules())
        assert all(parameter.grad is None for parameter in adapted.parameters())
        states.append(adapted.state_dict())
        draws.append(torch.rand(1))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert torch.equal(*draws)


@pytest.mark.parametrize("method", sorted(MERGEABLE))
def test_fresh_adapters_change_nothing(bert: PreTrainedModel, method: str) -> None:
    before = logits(bert)
    assert torch.allclose(logits(add_adapters(bert, MERGEABLE[method], "base")), before, atol=1e-6)


def test_dora_learns_magnitudes(bert: PreTrainedModel) -> None:
    adapted = add_adapters(bert, MERGEABLE["dora"], "base")
    found = {key: value.detach().clone() for key, value in adapted.named_parameters() if "magnitude" in key}
    train(adapted)
    assert found
    assert all((adapted.get_parameter(key) - value).abs().max() > 1e-3 for key, value in found.items())
    plain = add_adapters(build("bert"), MERGEABLE["lora"], "base")
    assert not any("magnitude" in key for key, _ in plain.named_parameters())


@pytest.mark.parametrize(("method", "scale"), [("lora", 8 / 2), ("rslora", 8 / math.sqrt(3)), ("dora", 8 / 2)])
def test_adapters_are_scaled_as_their_papers_say(bert: PreTrainedModel, method: str, scale: float) -> None:
    adapted = add_adapters(bert, MERGEABLE[method], "base")
    assert {module.scaling["default"] for module in adapted.modules() if isinstance(module, LoraLayer)} == {scale}


def test_prompts_reach_the_logits_of_every_text() -> None:
    for method, settings in PROMPTS.items():
        adapted = add_adapters(build("bert"), settings, "base")
        train(adapted, lr=0.5)
        before = logits(adapted)
        with torch.no_grad():
            for parameter in adapted.prompt_encoder.parameters():
                parameter.zero_()
        assert ((logits(adapted) - before).abs().max(dim=1).values > 1e-6).all(), method


def test_prefixes_leave_encoders_bidirectional(bert: PreTrainedModel) -> None:
    adapted = add_adapters(bert, PROMPTS["prefix_tuning"], "base").eval()
    embedded = bert.get_input_embeddings()(IDS[:1]).detach().requires_grad_(True)
    adapted(inputs_embeds=embedded, attention_mask=MASK[:1]).logits.sum().backward()
    assert (embedded.grad.abs().sum(-1) > 0).all()  # BERT classifies by the first token


def test_unknown_targets_are_told_with_those_that_exist(bert: PreTrainedModel) -> None:
    for settings in (
        Lora(lora=LoraSettings(targets=["q_proj"])),
        Ia3(ia3=Ia3Settings(targets=["q_proj"])),
        Ia3(ia3=Ia3Settings(feedforward=["q_proj"])),
    ):
        with pytest.raises(UserError, match=r"no linear layer named q_proj") as caught:
            add_adapters(bert, settings, "base")
        assert "key, query, value" in caught.value.remedy
    with pytest.raises(UserError, match="named classifier"):  # the head trains as a whole
        add_adapters(bert, Lora(lora=LoraSettings(targets=["classifier"])), "base")


def test_targets_may_be_endings_of_several_words(bert: PreTrainedModel) -> None:
    adapted = add_adapters(bert, Lora(lora=LoraSettings(targets=["intermediate.dense"])), "base")
    found = {key.split(".lora_")[0].rsplit(".", 2)[-2] for key, _ in adapted.named_parameters() if ".lora_" in key}
    assert found == {"intermediate"}


def test_a_target_of_the_heads_name_leaves_the_head_whole() -> None:
    adapted = add_adapters(build("roberta"), Lora(lora=LoraSettings(targets=["dense"])), "base")
    assert not any("classifier" in key for key, _ in adapted.named_parameters() if ".lora_" in key)


@pytest.mark.parametrize(
    ("name", "settings", "targets"),
    [
        ("bert", Lora(lora=LoraSettings()), {"query", "value"}),
        ("distilbert", Lora(lora=LoraSettings()), {f"attention.{end}_lin" for end in ("q", "k", "v", "out")}),
        ("modernbert", Lora(lora=LoraSettings()), {"attn.Wqkv", "attn.Wo"}),
        ("distilbert", Ia3(ia3=Ia3Settings()), {"k_lin", "v_lin", "ffn.lin2"}),
        ("bert", Ia3(ia3=Ia3Settings(feedforward=["intermediate.dense"])), {"key", "value", "intermediate.dense"}),
    ],
)
def test_what_is_adapted_without_targets_is_said(
    name: str, settings: Adapters, targets: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    adapted = add_adapters(build(name), settings, "base")
    assert config_of(adapted).target_modules == targets
    assert ", ".join(sorted(targets)) in capsys.readouterr().out


def test_feedforward_layers_are_scaled_at_their_inputs(bert: PreTrainedModel) -> None:
    targets = ["value", "intermediate.dense", "output.dense"]
    config = config_of(add_adapters(bert, Ia3(ia3=Ia3Settings(targets=targets)), "base"))
    assert config.feedforward_modules == {"output.dense"}
    with pytest.raises(UserError, match=r"feedforward names intermediate\.dense"):
        add_adapters(build("bert"), Ia3(ia3=Ia3Settings(targets=["key"], feedforward=["intermediate.dense"])), "base")


@pytest.mark.parametrize(("name", "positions"), [("bert", 64), ("roberta", 64), ("albert", 64)])
def test_texts_and_virtual_tokens_must_fit_into_the_positions(name: str, positions: int) -> None:
    adapted = add_adapters(build(name), PROMPTS["prompt_tuning"], "base")
    assert virtual_tokens(adapted) == 4
    check_length(adapted, positions - 4)
    ids = torch.full((1, positions - 4), 5)
    adapted(input_ids=ids, attention_mask=torch.ones_like(ids))  # or an index would be out of range
    with pytest.raises(UserError, match=f"need {positions + 1} positions") as caught:
        check_length(adapted, positions - 3)
    assert f"data.max_length to {positions - 4}" in caught.value.remedy


def test_without_prompts_every_length_is_the_bases_business(bert: PreTrainedModel) -> None:
    assert virtual_tokens(bert) == 0
    check_length(bert, 10**6)
    adapted = add_adapters(bert, MERGEABLE["lora"], "base")
    assert virtual_tokens(adapted) == 0
    check_length(adapted, 10**6)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_phases_dropout_holds_beside_adapters(tiny_encoder: Path, method: str) -> None:
    model, _ = load_base(tiny_encoder, ["negative", "positive"])
    own = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    with dropout(model, 0.0):
        adapted = add_adapters(model, METHODS[method], "base").train()
        ids = {"input_ids": IDS[:1], "attention_mask": MASK[:1]}
        assert torch.equal(adapted(**ids).logits, adapted(**ids).logits)
    plain = merged(adapted) if can_merge(adapted) else adapted.get_base_model()
    assert {module.p for module in plain.modules() if isinstance(module, nn.Dropout)} == own
