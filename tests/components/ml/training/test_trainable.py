"""Each policy trains just the parameters it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from components.errors import UserError
from components.ml.models.storage import load_base
from components.ml.training.trainable import choose, count_parameters, head_modules, learning_rates, levels
from components.params.trainable import Gradual, LastLayers, LayerLrDecay, Pattern

SMALL: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE = {"intermediate_size": 32, "max_position_embeddings": 32}
ARCHITECTURES: dict[str, PreTrainedConfig] = {
    "roberta": RobertaConfig(**SMALL, **WIDE),
    "distilbert": DistilBertConfig(vocab_size=40, dim=16, n_layers=3, n_heads=2, hidden_dim=32),
    "deberta": DebertaV2Config(**SMALL, **WIDE, relative_attention=True, pos_att_type=["c2p"]),
    "modernbert": ModernBertConfig(**SMALL, **WIDE, pad_token_id=0, eos_token_id=1, bos_token_id=2, cls_token_id=2),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2),
    "llama": LlamaConfig(**SMALL, **WIDE),
}


@pytest.fixture
def model(tiny_encoder: Path) -> PreTrainedModel:
    """A classifier with three layers."""
    return load_base(tiny_encoder, ["negative", "positive"])[0]


def trained(model: PreTrainedModel, chosen: Any, freeze_embeddings: bool = False) -> set[str]:
    choose(chosen, levels(model, model), freeze_embeddings)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_all_trains_everything(model: PreTrainedModel) -> None:
    model.requires_grad_(False)
    trained(model, "all")
    trains, of = count_parameters(model)
    assert trains == of == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("chosen", ["all", Pattern(pattern="."), LayerLrDecay(layer_lr_decay=0.5)])
def test_embeddings_can_be_frozen_on_their_own(model: PreTrainedModel, chosen: Any) -> None:
    frozen = {name for name, _ in model.named_parameters()} - trained(model, chosen, freeze_embeddings=True)
    assert frozen == {name for name, _ in model.named_parameters() if "embeddings" in name}


def test_the_head_is_the_classifier_and_the_pooler(model: PreTrainedModel) -> None:
    assert {name.rsplit(".", 1)[0] for name in trained(model, "head")} == {"bert.pooler.dense", "classifier"}
    assert trained(model, LastLayers(last_layers=0)) == trained(model, "head")


def test_last_layers_leave_the_lower_ones_and_the_embeddings_frozen(model: PreTrainedModel) -> None:
    names = trained(model, LastLayers(last_layers=2))
    assert not any(".layer.0." in name or "embeddings" in name for name in names)
    assert all(any(f".layer.{index}." in name for name in names) for index in (1, 2))
    assert "classifier.weight" in names


def test_more_layers_than_there_are_is_an_error(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match="has 3 layers, got 4"):
        trained(model, LastLayers(last_layers=4))


def test_a_pattern_trains_just_what_it_matches(model: PreTrainedModel) -> None:
    names = trained(model, Pattern(pattern=r"layer\.[12]\..*query"))
    assert names == {
        f"bert.encoder.layer.{index}.attention.self.query.{part}" for index in (1, 2) for part in ("weight", "bias")
    }


def test_a_pattern_that_matches_nothing_names_what_is_near(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match="no parameter's name matches 'clasifier'") as caught:
        trained(model, Pattern(pattern="clasifier"))
    assert "classifier" in caught.value.remedy


def test_learning_rates_fall_by_layer_from_the_head_down(model: PreTrainedModel) -> None:
    by_level = levels(model, model)
    rates = learning_rates(LayerLrDecay(layer_lr_decay=0.5), by_level)
    assert rates["classifier.weight"] == 1.0
    for layer, expected in ((2, 0.5), (1, 0.25), (0, 0.125)):
        assert rates[f"bert.encoder.layer.{layer}.output.dense.weight"] == expected
    assert rates["bert.embeddings.word_embeddings.weight"] == 0.5**4
    assert rates.keys() == {name for name, _ in model.named_parameters()}


def test_other_policies_have_one_learning_rate(model: PreTrainedModel) -> None:
    assert learning_rates("all", levels(model, model)) == {}


def test_gradual_thawing_starts_from_all_that_it_will_reach(model: PreTrainedModel) -> None:
    gradual = Gradual.model_validate({"gradual": {"epochs_per_layer": 1.0}})
    assert trained(model, gradual) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_falls_into_head_layers_and_embeddings(name: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(ARCHITECTURES[name])
    by_level = levels(model, model)
    assert len(by_level) == 5
    assert sum(len(level) for level in by_level) == len(list(model.named_parameters()))
    assert all(by_level), [len(level) for level in by_level]
    head = {name.split(".")[0] for name in by_level[0]} - {model.base_model_prefix}
    assert head == set(head_modules(model))
    assert model.get_input_embeddings().weight in set(by_level[-1].values())


def test_an_architecture_without_a_list_of_layers_trains_as_a_whole_or_by_its_head() -> None:
    settings = {"vocab_size": 40, "embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 3}
    config = AlbertConfig(**settings, num_attention_heads=2, intermediate_size=32)
    model = AutoModelForSequenceClassification.from_config(config)
    every = {name for name, _ in model.named_parameters()}
    assert trained(model, "all") == every
    assert trained(model, "head") == {name for name in every if name.startswith("classifier")}
    for chosen, frozen in ((LastLayers(last_layers=1), False), ("all", True)):
        with pytest.raises(UserError, match="has no list of layers"):
            trained(model, chosen, freeze_embeddings=frozen)


def test_head_modules_are_found_without_naming_the_architecture(model: PreTrainedModel) -> None:
    assert head_modules(model) == ["classifier"]
