"""A model of every task over every architecture: built, saved, cut to a student, adapted, merged and exported."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from components.errors import UserError
from components.export.convert import convert
from components.ml.adapters.peft_models import add_adapters, merged
from components.ml.models.onnx_classifier import load_onnx
from components.ml.models.scoring import label_names, load_classifier, predict_rows
from components.ml.models.storage import load_base, save
from components.ml.models.students import build_student, pretrained_student, resized_student
from components.ml.models.task_models import auto_model, refuse_architecture, task_of
from components.ml.rows.tokenised import Collator
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Reading
from components.ml.training.objectives import Labels
from components.params.trainable import (
    Adapters,
    Lora,
    LoraSettings,
    PrefixTuning,
    PromptSettings,
    PromptTuning,
    PTuning,
    PTuningSettings,
)
from tests.components.ml.tasks.tools import CONFIGS, LABELS, items_of, model_of, reading_only, sample

READING = Reading(20, 4)
EVERY = [(architecture, kind) for architecture in CONFIGS for kind in LABELS]
LORA = Lora(lora=LoraSettings(r=2, alpha=4))
PROMPTS: dict[str, Adapters] = {
    "prompt_tuning": PromptTuning(prompt_tuning=PromptSettings(tokens=2)),
    "prefix_tuning": PrefixTuning(prefix_tuning=PromptSettings(tokens=2)),
    "p_tuning": PTuning(p_tuning=PTuningSettings(tokens=2)),
}


def scored(model: Any, tokenizer: PreTrainedTokenizerBase, kind: str) -> list[np.ndarray]:
    inputs = [given for given, _ in sample(kind, 7, 4, 30)]
    return predict_rows(model, tokenizer, inputs, reading=READING)


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max(initial=0) <= tolerance


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]


@pytest.mark.parametrize(("architecture", "kind"), EVERY)
def test_a_model_says_what_it_is_for_and_reads_back_with_the_same_logits(
    architecture: str, kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    own = reading_only(tokenizer, architecture)
    model = model_of(kind, own, architecture)
    assert task_of(model) is TASKS[kind]
    expected = scored(model, own, kind)
    assert len({one.tobytes() for one in expected}) == 7
    save(model, own, tmp_path / "model")
    again, its_tokenizer = load_classifier(tmp_path / "model")
    assert task_of(again) is task_of(again.config) is TASKS[kind]
    assert label_names(again) == LABELS[kind]
    assert_equal(scored(again, its_tokenizer, kind), expected)


@pytest.mark.parametrize(("architecture", "kind"), EVERY)
def test_a_student_takes_layers_and_the_head(
    architecture: str, kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    own = reading_only(tokenizer, architecture)
    teacher = model_of(kind, own, architecture)
    whole = build_student(teacher, 3).eval()
    assert_equal(scored(whole, own, kind), scored(teacher, own, kind))
    student = build_student(teacher, 2).eval()
    assert task_of(student) is TASKS[kind]
    assert label_names(student) == LABELS[kind]
    weights = teacher.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
    found = scored(student, own, kind)
    assert [one.shape for one in found] == [one.shape for one in scored(teacher, own, kind)]
    save(student, own, tmp_path / "model")
    assert_equal(scored(*load_classifier(tmp_path / "model"), kind), found)


@pytest.mark.parametrize("kind", LABELS)
def test_a_student_of_another_size_or_of_a_base_model_is_of_the_teachers_task(
    kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    teacher = model_of(kind, tokenizer)
    small = resized_student(teacher, {"hidden_size": 8, "num_hidden_layers": 1}).eval()
    assert task_of(small) is TASKS[kind]
    assert [one.shape for one in scored(small, tokenizer, kind)] == [
        one.shape for one in scored(teacher, tokenizer, kind)
    ]
    model_of(DEFAULT, tokenizer).base_model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    student, its_tokenizer = pretrained_student(tmp_path / "base", LABELS[kind], "data.models.base", TASKS[kind])
    assert task_of(student) is TASKS[kind]
    assert label_names(student) == LABELS[kind]
    assert [len(one) for one in scored(student.eval(), its_tokenizer, kind)] == TASKS[kind].positions(
        [given for given, _ in sample(kind, 7, 4, 30)], its_tokenizer
    )


@pytest.mark.parametrize(("architecture", "kind"), EVERY)
def test_adapters_train_and_are_merged_with_the_same_logits(
    architecture: str, kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    own = reading_only(tokenizer, architecture)
    model = model_of(kind, own, architecture)
    before, names = scored(model, own, kind), set(model.state_dict())
    adapted = add_adapters(model, LORA, "base")
    assert task_of(adapted) is TASKS[kind]
    items, _ = items_of(tmp_path, kind, sample(kind, 6), own)
    batch = Collator(own, TASKS[kind], len(LABELS[kind]))(items)
    objective = Labels(task=TASKS[kind])
    optimiser = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=0.01)
    losses = []
    for _ in range(5):
        loss = objective.loss(adapted, batch, objective.counts(batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    expected = scored(adapted, own, kind)
    assert any(np.abs(one - other).max(initial=0) > 1e-3 for one, other in zip(before, expected, strict=True))
    plain = merged(adapted)
    assert set(plain.state_dict()) == names
    assert task_of(plain) is TASKS[kind]
    assert_close(scored(plain, own, kind), expected, 1e-4)


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("method", PROMPTS)
def test_prompts_are_refused_where_they_would_move_the_places_that_are_read(
    method: str, kind: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = model_of(kind, tokenizer)
    if TASKS[kind].prompts:
        assert task_of(add_adapters(model, PROMPTS[method], "base")) is TASKS[kind]
        return
    with pytest.raises(UserError, match=f"{method} isn't possible with .* places that {kind} reads"):
        add_adapters(model, PROMPTS[method], "base")


T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
XGLM = {"d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 32, "vocab_size": 64}


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (transformers.T5Config(**T5), set(LABELS) - {DEFAULT}),
        (transformers.BartConfig(d_model=16, vocab_size=64), set(LABELS) - {DEFAULT}),
        (transformers.XGLMConfig(**XGLM), set(LABELS) - {DEFAULT, "relation-classification"}),
        (transformers.BertConfig(), set()),
    ],
    ids=["t5", "bart", "xglm", "bert"],
)
def test_an_architecture_without_such_a_head_is_refused_by_name(config: Any, kinds: set[str]) -> None:
    for kind in set(LABELS) - {DEFAULT}:
        if kind in kinds:
            with pytest.raises(UserError, match=f"{config.model_type} \\(teacher.base\\) has no head for {kind}"):
                refuse_architecture(config, TASKS[kind], "teacher.base")
        else:
            refuse_architecture(config, TASKS[kind], "teacher.base")


def test_a_base_model_without_the_head_is_refused_before_it_is_loaded(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    transformers.T5Model(transformers.T5Config(**T5)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"t5 .* has no head for question-answering over an encoder"):
        load_base(tmp_path, LABELS["question-answering"], task=TASKS["question-answering"])


@pytest.mark.parametrize("kind", LABELS)
def test_the_class_of_a_model_is_transformers_own(kind: str) -> None:
    model: PreTrainedModel = auto_model(TASKS[kind]).from_config(copy.deepcopy(CONFIGS["bert"]()))
    expected = {
        "token-classification": "BertForTokenClassification",
        "question-answering": "BertForQuestionAnswering",
        "relation-classification": "EntityMarkerClassifier",
    }
    assert type(model).__name__ == expected.get(kind, "BertForSequenceClassification")


EXPORTED = [
    ("roberta", "relation-classification"),
    ("distilbert", "question-answering"),
    ("deberta-v2", "token-classification"),
    ("modernbert", "question-answering"),
]
"""Each takes seconds; BERT with every task goes through the stages in tests/components/test_tasks_through_stages.py."""


@pytest.mark.parametrize(("architecture", "kind"), EXPORTED)
def test_an_exported_model_has_the_same_logits(
    architecture: str, kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    own = reading_only(tokenizer, architecture)
    model = model_of(kind, own, architecture)
    save(model, own, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "onnx", 20)
    exported, its_tokenizer = load_onnx(tmp_path / "onnx")
    assert task_of(exported) is TASKS[kind]
    assert label_names(exported) == LABELS[kind]
    assert_close(scored(exported, its_tokenizer, kind), scored(model, own, kind), 1e-4)
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path / "onnx").model_max_length, int)
