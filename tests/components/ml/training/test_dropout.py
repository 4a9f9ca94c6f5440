"""A phase's dropout holds while it trains, and the model has its own again afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from components.ml.adapters.peft_models import add_adapters, merged
from components.ml.models.storage import load_base
from components.ml.training.dropout import dropout
from components.params.trainable import Lora, LoraSettings


def probabilities(model: nn.Module) -> set[float]:
    return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}


@pytest.fixture
def model(tiny_encoder: Path) -> PreTrainedModel:
    loaded, _ = load_base(tiny_encoder, ["negative", "positive"])
    loaded.train()
    return loaded


def spread(model: nn.Module) -> float:
    """How far the logits of two passes in training mode lie apart."""
    ids = torch.arange(5, 13).unsqueeze(0)
    with torch.no_grad():
        return float((model(input_ids=ids).logits - model(input_ids=ids).logits).abs().max())


def test_without_dropout_training_mode_is_deterministic_and_the_models_own_returns(model: PreTrainedModel) -> None:
    own = probabilities(model)
    assert spread(model) > 0
    with dropout(model, 0.0):
        assert spread(model) == 0
    assert probabilities(model) == own
    assert spread(model) > 0


def test_attention_that_holds_a_number_of_its_own_is_reached() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ModernBertConfig(
        vocab_size=40, attention_dropout=0.5, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    model = ModernBertForSequenceClassification(config).train()
    assert spread(model) > 0
    with dropout(model, 0.0):
        assert spread(model) == 0
    assert spread(model) > 0


def test_none_keeps_the_models_own(model: PreTrainedModel) -> None:
    own = probabilities(model)
    with dropout(model, None):
        assert probabilities(model) == own


def test_adapters_keep_their_own_dropout(model: PreTrainedModel) -> None:
    with dropout(model, 0.0):
        adapted = add_adapters(model, Lora(lora=LoraSettings(r=2, alpha=4, dropout=0.25, targets=["query"])), "base")
        assert probabilities(adapted) == {0.0, 0.25}


def test_a_head_that_trained_beside_adapters_has_its_own_again() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = RobertaForSequenceClassification(RobertaConfig(vocab_size=40, classifier_dropout=0.5, **sizes))
    with dropout(model, 0.0):
        adapted = add_adapters(model, Lora(lora=LoraSettings(r=2, alpha=4, dropout=0.25, targets=["query"])), "base")
    assert merged(adapted).classifier.dropout.p == 0.5
