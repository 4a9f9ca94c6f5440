"""What is saved comes back with the same logits, whether adapters were merged or prompts lie beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
)

from components.errors import UserError
from components.ml.adapters.peft_models import add_adapters
from components.ml.adapters.saving import save_trained
from components.ml.models.scoring import label_names, load_classifier, load_plain, predict_logits
from components.ml.models.storage import load_base, save, save_adapter
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

TEXTS = ["good phone", "这 电 影 很 糟", "bad", "it was a lovely film the story was great"]
MERGEABLE: dict[str, Adapters] = {
    "lora": Lora(lora=LoraSettings(r=2)),
    "dora": Lora(lora=LoraSettings(r=2, dora=True)),
    "rslora": Lora(lora=LoraSettings(r=2, rslora=True)),
    "ia3": Ia3(ia3=Ia3Settings()),
}
PROMPTS: dict[str, Adapters] = {
    "prompt_tuning": PromptTuning(prompt_tuning=PromptSettings(tokens=4)),
    "prefix_tuning": PrefixTuning(prefix_tuning=PromptSettings(tokens=4)),
    "p_tuning": PTuning(p_tuning=PTuningSettings(tokens=4, hidden=8)),
}


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SPECIAL = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


def tuned(
    encoder: Path, settings: Adapters, base_name: str = "artifacts/distill/model"
) -> tuple[PeftModel, PreTrainedModel, PreTrainedTokenizerBase]:
    """A model whose adapters and head have moved, the plain one as it was before, and the tokenizer."""
    torch.manual_seed(0)
    plain, tokenizer = load_base(encoder, ["negative", "正面"])
    torch.manual_seed(0)
    before, _ = load_base(encoder, ["negative", "正面"])
    return moved(add_adapters(plain, settings, base_name)), before.eval(), tokenizer


def moved(adapted: PeftModel) -> PeftModel:
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return adapted.eval()


def logits(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    return predict_logits(model, tokenizer, TEXTS, max_length=16, batch_size=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", sorted(PROMPTS))
def test_prompts_come_back_with_their_model(tiny_encoder: Path, tmp_path: Path, method: str) -> None:
    adapted, before, tokenizer = tuned(tiny_encoder, PROMPTS[method])
    expected = logits(adapted, tokenizer)
    save_trained(adapted, tokenizer, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    loaded, reader = load_classifier(tmp_path / "model")
    assert isinstance(loaded, PeftModel)
    assert not any(module.training for module in loaded.modules())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert label_names(loaded) == ["negative", "正面"]
    assert np.array_equal(logits(loaded, reader), expected)
    assert not np.allclose(logits(before, tokenizer), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (RobertaConfig(**SIZES, **SPECIAL), "p_tuning"),
        (ModernBertConfig(**SIZES, **SPECIAL), "prompt_tuning"),
        (ModernBertConfig(**SIZES, **SPECIAL), "p_tuning"),
        (AlbertConfig(**SIZES, **SPECIAL, embedding_size=8), "prompt_tuning"),
        (GPT2Config(n_embd=16, n_layer=2, n_head=2, **SPECIAL), "prefix_tuning"),
        (LlamaConfig(**SIZES, **SPECIAL, num_key_value_heads=1), "prefix_tuning"),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_prompts_come_back_in_every_family(
    tiny_encoder: Path, tmp_path: Path, config: PreTrainedConfig, method: str
) -> None:
    torch.manual_seed(0)
    _, tokenizer = load_base(tiny_encoder, ["a", "b"])
    model = AutoModelForSequenceClassification.from_config(config)
    adapted = moved(add_adapters(model, PROMPTS[method], "base"))
    expected = logits(adapted, tokenizer)
    save_trained(adapted, tokenizer, tmp_path)
    assert np.array_equal(logits(*load_classifier(tmp_path / "model")), expected)


@pytest.mark.parametrize("method", sorted(PROMPTS))
def test_under_the_prompts_lies_the_model_they_were_trained_on(tiny_encoder: Path, tmp_path: Path, method: str) -> None:
    adapted, before, tokenizer = tuned(tiny_encoder, PROMPTS[method])
    save_trained(adapted, tokenizer, tmp_path / "tuned")
    save(before, tokenizer, tmp_path / "plain")
    found = contents(tmp_path / "tuned" / "model")
    prompts = {name: found.pop(name) for name in list(found) if name.startswith("adapter/")}
    assert found == contents(tmp_path / "plain")
    assert prompts.keys() == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned" / "model").eval()
    assert np.array_equal(logits(plain, tokenizer), logits(before, tokenizer))  # transformers looks past adapter/


@pytest.mark.parametrize("method", sorted(MERGEABLE))
def test_merged_adapters_are_kept_with_what_they_belong_to(tiny_encoder: Path, tmp_path: Path, method: str) -> None:
    adapted, before, tokenizer = tuned(tiny_encoder, MERGEABLE[method])
    expected = logits(adapted, tokenizer)
    save_trained(adapted, tokenizer, tmp_path, keep_base=True)
    merged, _ = load_plain(tmp_path / "model")
    base, _ = load_plain(tmp_path / "base")
    assert np.array_equal(logits(base, tokenizer), logits(before, tokenizer))
    again = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    assert np.allclose(logits(merged, tokenizer), expected, atol=1e-4)
    assert np.array_equal(logits(again, tokenizer), expected)


def test_without_a_need_the_base_is_not_kept(tiny_encoder: Path, tmp_path: Path) -> None:
    adapted, before, tokenizer = tuned(tiny_encoder, MERGEABLE["lora"])
    save_trained(adapted, tokenizer, tmp_path / "a")
    save_trained(before, tokenizer, tmp_path / "b", keep_base=True)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"model", "adapter"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"model"}


@pytest.mark.parametrize("method", sorted(MERGEABLE | PROMPTS))
def test_the_same_training_gives_the_same_bytes_and_no_path_of_this_machine(
    tiny_encoder: Path, tmp_path: Path, method: str
) -> None:
    for name in ("one", "other"):
        adapted, _, tokenizer = tuned(tiny_encoder, (MERGEABLE | PROMPTS)[method])
        save_trained(adapted, tokenizer, tmp_path / name, keep_base=True)
    found = contents(tmp_path / "one")
    assert found == contents(tmp_path / "other")
    texts = {name: text for name, text in found.items() if not name.endswith(".safetensors")}
    assert not any(str(path).encode() in text for path in (tmp_path, tiny_encoder) for text in texts.values())
    config = next(json.loads(text) for name, text in texts.items() if name.endswith("adapter_config.json"))
    assert config["base_model_name_or_path"] == "artifacts/distill/model"


def test_loading_prompts_leaves_the_random_state_alone(tiny_encoder: Path, tmp_path: Path) -> None:
    adapted, _, tokenizer = tuned(tiny_encoder, PROMPTS["p_tuning"])
    save_trained(adapted, tokenizer, tmp_path)
    state = torch.random.get_rng_state()
    load_classifier(tmp_path / "model")
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_model_that_needs_prompts_is_not_built_on(tiny_encoder: Path, tmp_path: Path) -> None:
    adapted, _, tokenizer = tuned(tiny_encoder, PROMPTS["prompt_tuning"])
    save_trained(adapted, tokenizer, tmp_path)
    with pytest.raises(UserError, match="can't be merged into weights"):
        load_plain(tmp_path / "model")
    with pytest.raises(UserError, match="can't be merged into weights"):
        load_base(tmp_path / "model", ["a", "b"])


def test_prompts_in_a_pickle_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    adapted, _, tokenizer = tuned(tiny_encoder, PROMPTS["prompt_tuning"])
    save_trained(adapted, tokenizer, tmp_path)
    adapter = tmp_path / "model" / "adapter"
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin"):
        load_classifier(tmp_path / "model")


@pytest.mark.parametrize("method", ["lora", "prefix_tuning"])
def test_diverged_adapters_are_not_saved(tiny_encoder: Path, tmp_path: Path, method: str) -> None:
    adapted, _, tokenizer = tuned(tiny_encoder, (MERGEABLE | PROMPTS)[method])
    with torch.no_grad():
        next(parameter for parameter in adapted.parameters() if parameter.requires_grad).fill_(torch.nan)
    with pytest.raises(UserError, match="diverged"):
        save_trained(adapted, tokenizer, tmp_path)
    with pytest.raises(UserError, match="diverged"):
        save_adapter(adapted, tmp_path / "adapter")
