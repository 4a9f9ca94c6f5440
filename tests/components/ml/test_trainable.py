"""Each policy trains just the parameters it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedModel

from components.errors import UserError
from components.ml.models import load_base
from components.ml.trainable import (
    add_lora,
    count_parameters,
    head_modules,
    merged,
    train_all,
    train_encoder,
    train_last_layers,
)


@pytest.fixture
def model(tiny_encoder: Path) -> PreTrainedModel:
    """A classifier with three layers."""
    return load_base(tiny_encoder, ["negative", "positive"])[0]


def trained(model: PreTrainedModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_all_trains_everything(model: PreTrainedModel) -> None:
    model.requires_grad_(False)
    train_all(model)
    trains, of = count_parameters(model)
    assert trains == of == sum(parameter.numel() for parameter in model.parameters())


def test_the_encoder_is_all_but_the_embeddings(model: PreTrainedModel) -> None:
    train_encoder(model)
    frozen = {name for name, _ in model.named_parameters()} - trained(model)
    assert frozen == {name for name, _ in model.named_parameters() if "embeddings" in name}


def test_the_head_is_the_classifier_and_the_pooler(model: PreTrainedModel) -> None:
    train_last_layers(model, 0)
    assert {name.rsplit(".", 1)[0] for name in trained(model)} == {"bert.pooler.dense", "classifier"}


def test_last_layers_leave_the_lower_ones_and_the_embeddings_frozen(model: PreTrainedModel) -> None:
    train_last_layers(model, 2)
    assert not any(".layer.0." in name or "embeddings" in name for name in trained(model))
    assert all(any(f".layer.{index}." in name for name in trained(model)) for index in (1, 2))
    assert "classifier.weight" in trained(model)


def test_more_layers_than_there_are_is_an_error(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match="has 3 layers, got 4"):
        train_last_layers(model, 4)


def test_lora_trains_adapters_and_the_whole_head(model: PreTrainedModel) -> None:
    adapted = add_lora(model, r=2, alpha=4, dropout=0.0, targets=["query"], base_name="artifacts/distill/model")
    names = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in names)
    assert any("classifier.modules_to_save" in name for name in names)
    assert adapted.peft_config["default"].base_model_name_or_path == "artifacts/distill/model"


def test_a_fresh_adapter_changes_nothing_once_merged(model: PreTrainedModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = merged(add_lora(model, r=2, alpha=4, dropout=0.0, targets=["query"], base_name="x")).state_dict()
    assert before.keys() == after.keys()
    assert all(bool((before[name] == after[name]).all()) for name in before)


def test_lora_on_layers_that_do_not_exist_names_those_that_do(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match="q_proj") as caught:
        add_lora(model, r=2, alpha=4, dropout=0.0, targets=["q_proj"], base_name="x")
    assert "query" in caught.value.remedy


def test_head_modules_are_found_without_naming_the_architecture(model: PreTrainedModel) -> None:
    assert head_modules(model) == ["classifier"]
