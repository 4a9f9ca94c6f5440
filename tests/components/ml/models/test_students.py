"""Students keep just the layers they were promised."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMConfig,
)

from components.errors import UserError
from components.ml.models.encoder import encoder_layers
from components.ml.models.layers import choose_layers
from components.ml.models.scoring import label_names
from components.ml.models.storage import load_base, save
from components.ml.models.students import (
    build_student,
    make_student,
    pretrained_student,
    resized_student,
)
from components.params.stages import Student

SMALL: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


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
def test_a_student_has_the_teachers_weights_in_the_chosen_layers(config: PreTrainedConfig) -> None:
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


TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DEEP: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(num_hidden_layers=4, **SMALL),
    "distilbert": DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=32, n_layers=4),
    "deberta-v2": DebertaV2Config(num_hidden_layers=4, **{"pooler_hidden_size": 16}, **SMALL),
    "modernbert": ModernBertConfig(
        num_hidden_layers=4, local_attention=4, cls_token_id=1, sep_token_id=2, **TOKENS, **SMALL
    ),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=4, n_positions=64, **TOKENS),
    "llama": LlamaConfig(num_hidden_layers=4, num_key_value_heads=2, pad_token_id=0, **SMALL),
}
IDS = torch.randint(5, 40, (2, 12), generator=torch.Generator().manual_seed(0))


def classifier(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(copy.deepcopy(config))
    model.eval()
    return model


@pytest.mark.parametrize("name", DEEP)
def test_a_student_reads_back_as_it_was_built_and_with_all_layers_is_its_teacher(name: str, tmp_path: Path) -> None:
    teacher = classifier(DEEP[name])
    student = build_student(teacher, [0, 2]).eval()
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(student(input_ids=IDS).logits, again(input_ids=IDS).logits)
    assert torch.equal(build_student(teacher, 4).eval()(input_ids=IDS).logits, teacher(input_ids=IDS).logits)


def test_layers_keep_their_own_kind_of_attention() -> None:
    teacher = classifier(DEEP["modernbert"])
    assert teacher.config.layer_types == [
        "full_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
    ]
    student = build_student(teacher, [0, 3])
    assert student.config.layer_types == ["full_attention", "full_attention"]
    assert [layer.attn.sliding_window for layer in encoder_layers(student)[1]] == [None, None]


@pytest.mark.parametrize(
    ("config", "layers", "words"),
    [
        (DEEP["modernbert"], [1, 2], "layer 1 of ModernBertForSequenceClassification works otherwise"),
        (
            GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=4, scale_attn_by_inverse_layer_idx=True, **TOKENS),
            [0, 2],
            "layer 2 of GPT2ForSequenceClassification works otherwise as the student's layer 1: scaling of attn",
        ),
        (XLMConfig(vocab_size=40, emb_dim=16, n_layers=4, n_heads=2), [0, 1], "has no list of 4 encoder layers"),
    ],
)
def test_layers_that_would_not_work_as_before_are_refused(
    config: PreTrainedConfig, layers: list[int], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        build_student(classifier(config), layers)
    assert words in caught.value.message
    assert caught.value.remedy


def test_local_and_global_layers_of_gpt_neo_stay_what_they_are() -> None:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_heads": 2, "max_position_embeddings": 64, "window_size": 4}
    config = GPTNeoConfig(num_layers=4, attention_types=[[["global", "local"], 2]], **sizes, **TOKENS)
    teacher = classifier(config)
    student = build_student(teacher, [1, 2])
    kept, given = encoder_layers(student)[1], encoder_layers(teacher)[1]
    for new, old in ((0, 1), (1, 2)):
        assert torch.equal(kept[new].attn.attention.bias, given[old].attn.attention.bias)


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 2}, {"num_hidden_layers": 6}, {"hidden_size": 8}, {"num_attention_heads": 4}]
)
def test_a_resized_student_is_as_asked_and_reads_and_tells_what_the_teacher_does(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    teacher = classifier(DEEP[name])
    teacher.config.id2label, teacher.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    student = resized_student(teacher, changes).eval()
    assert {key: getattr(student.config, key) for key in changes} == changes
    assert len(encoder_layers(student)[1]) == student.config.num_hidden_layers
    assert label_names(student) == ["no", "yes"]
    assert student.config.vocab_size == teacher.config.vocab_size
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(student(input_ids=IDS).logits, again(input_ids=IDS).logits)


def test_a_resized_student_follows_the_seed_alone() -> None:
    teacher = classifier(DEEP["bert"])
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(resized_student(teacher, {"num_hidden_layers": 2}).bert.pooler.dense.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("bert", {"hiden_size": 8}, "bert knows no 'hiden_size'.\nDid you mean 'hidden_size'?"),
        ("bert", {"vocab_size": 99}, "vocab_size stays the teacher's"),
        ("bert", {"id2label": {}}, "id2label stays the teacher's"),
        ("bert", {"pad_token_id": 3}, "pad_token_id stays the teacher's"),
        ("bert", {"hidden_size": 9}, "the width (hidden_size) is 9, which 2 attention heads"),
        ("distilbert", {"dim": 9}, "the width (hidden_size) is 9, which 2 attention heads"),
        ("distilbert", {"n_layers": 2, "num_hidden_layers": 3}, "are one setting"),
        ("bert", {"num_hidden_layers": 0}, "expected a number of layers of 1 or more, got 0"),
        ("bert", {"intermediate_size": "wide"}, "no bert model can be built with it"),
        ("bert", {"hidden_act": "gelo"}, "no bert model can be built with it"),
        ("llama", {"num_key_value_heads": 3}, "can't share 3 key and value heads"),
    ],
)
def test_settings_that_no_student_can_have_are_refused(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        resized_student(classifier(DEEP[name]), changes)
    assert words in str(caught.value)
    assert caught.value.message.startswith("distill.student.config: ")
    assert caught.value.kind == "parameters"


@pytest.fixture
def tuned(tiny_encoder: Path, tmp_path: Path) -> Path:
    """A classifier tuned for the labels bad, good and so-so."""
    torch.manual_seed(5)
    model, tokenizer = load_base(tiny_encoder, ["bad", "good", "so-so"])
    with torch.no_grad():
        model.classifier.bias.normal_()
    save(model, tokenizer, tmp_path / "tuned")
    return tmp_path / "tuned"


def test_a_tuned_model_keeps_its_head_in_the_order_of_the_teachers_labels(tuned: Path) -> None:
    given = AutoModelForSequenceClassification.from_pretrained(tuned).eval()
    student, _ = pretrained_student(tuned, ["so-so", "bad", "good"])
    student.eval()
    assert label_names(student) == ["so-so", "bad", "good"]
    assert torch.equal(student(input_ids=IDS).logits, given(input_ids=IDS).logits[:, [2, 0, 1]])


@pytest.mark.parametrize("labels", [["x", "y", "z"], ["x", "y"]])
def test_a_head_that_was_tuned_for_other_labels_is_not_kept(tuned: Path, labels: list[str]) -> None:
    given = AutoModelForSequenceClassification.from_pretrained(tuned)
    torch.manual_seed(1)
    student, _ = pretrained_student(tuned, labels)
    torch.manual_seed(1)
    again, _ = pretrained_student(tuned, labels)
    assert label_names(student) == labels
    assert student.classifier.out_features == len(labels)
    rows = min(len(labels), 3)
    assert not torch.isclose(student.classifier.weight[:rows], given.classifier.weight[:rows]).all(dim=1).any()
    assert torch.equal(student.classifier.weight, again.classifier.weight)
    assert torch.equal(student.bert.pooler.dense.weight, given.bert.pooler.dense.weight)


def test_every_kind_of_student_comes_with_its_tokenizer_and_its_origin(tuned: Path, tiny_encoder: Path) -> None:
    models = {"other": str(tiny_encoder)}
    for settings, layers, origin in (
        ({"layers": 2, "take": "upper"}, 2, [1, 2]),
        ({"config": {"num_hidden_layers": 1}}, 1, None),
        ({"model": "other"}, 3, None),
    ):
        model, tokenizer, found = make_student(Student.model_validate(settings), tuned, models)
        assert (len(encoder_layers(model)[1]), found) == (layers, origin)
        assert label_names(model) == ["bad", "good", "so-so"]
        assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(tiny_encoder).get_vocab()
        assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_a_student_that_is_not_there_is_refused(tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        make_student(Student(model="other"), tuned, {"other": str(tmp_path / "nowhere")})
