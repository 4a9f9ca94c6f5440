"""Students keep just the layers they were promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from components.errors import UserError
from components.ml.layers import choose_layers
from components.ml.models import load_base
from components.ml.students import build_student, encoder_layers

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize(
    ("layers", "take", "expected"),
    [
        (3, "lower", [0, 1, 2]),
        (3, "upper", [3, 4, 5]),
        (3, "uniform", [0, 2, 5]),
        (2, "uniform", [0, 5]),
        (1, "uniform", [0]),
        (6, "uniform", [0, 1, 2, 3, 4, 5]),
        ([0, 2, 5], "lower", [0, 2, 5]),
    ],
)
def test_layers_are_chosen_as_named(layers: int | list[int], take: str, expected: list[int]) -> None:
    assert choose_layers(6, layers, take) == expected


@pytest.mark.parametrize("layers", [7, [0, 6], [2, 1], [1, 1]])
def test_layers_the_teacher_lacks_are_refused(layers: int | list[int]) -> None:
    with pytest.raises(UserError, match=r"distill\.student\.layers"):
        choose_layers(6, layers, "lower")


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(num_hidden_layers=4, **SMALL),
        RobertaConfig(num_hidden_layers=4, **SMALL),
        DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=32, n_layers=4),
    ],
    ids=["bert", "roberta", "distilbert"],
)
def test_a_student_has_the_teachers_weights_in_the_chosen_layers(config: PretrainedConfig) -> None:
    teacher = AutoModelForSequenceClassification.from_config(config)
    student = build_student(teacher, [1, 3])
    assert student.config.num_hidden_layers == 2
    _, kept = encoder_layers(student)
    _, given = encoder_layers(teacher)
    for new, old in ((0, 1), (1, 3)):
        for one, other in zip(kept[new].parameters(), given[old].parameters(), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)


def test_a_student_with_every_layer_gives_the_teachers_logits(tiny_encoder: Path) -> None:
    teacher, tokenizer = load_base(tiny_encoder, ["a", "b"])
    student = build_student(teacher.eval(), 3).eval()
    batch = tokenizer(["good phone", "这部电影很差"], padding=True, return_tensors="pt")
    assert torch.equal(teacher(**batch).logits, student(**batch).logits)


def test_training_a_student_leaves_its_teacher_alone(tiny_encoder: Path) -> None:
    teacher, _ = load_base(tiny_encoder, ["a", "b"])
    student = build_student(teacher, 2)
    before = teacher.classifier.weight.clone()
    with torch.no_grad():
        student.classifier.weight += 1
    assert torch.equal(teacher.classifier.weight, before)
