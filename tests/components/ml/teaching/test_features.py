"""Terms learn what they say, from the layers they name, over the positions that are there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMConfig,
)

from components.errors import UserError
from components.ml.models.layers import map_layers
from components.ml.teaching.features import FeatureTerms, check_tokenizers
from components.ml.teaching.terms import attention_sum, relation_sum
from components.params.phases import Terms

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "max_position_embeddings": 64,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DEBERTA: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pooler_hidden_size": 16}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL),
    "distilbert": DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=32, n_layers=4),
    "deberta-v2": DebertaV2Config(**SMALL, **DEBERTA, **{"share_att_key": True, "position_buckets": 8}),
    "mpnet": MPNetConfig(**SMALL),
    "modernbert": ModernBertConfig(**SMALL, **TOKENS, local_attention=4, cls_token_id=1, sep_token_id=2),
    "llama": LlamaConfig(**SMALL, num_key_value_heads=1, pad_token_id=0),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=4, n_positions=64, **TOKENS),
}
TERMS: dict[str, dict[str, Any]] = {
    "hidden": {"hidden": {}},
    "attention": {"attention": {}},
    "relation": {"relation": {"heads": 4}},
}
EVERY = {name: value for term in TERMS.values() for name, value in term.items()}


def make(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A random classifier whose weights are large enough for attention to be uneven."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(copy.deepcopy(config))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight.normal_(0, 0.3)
    model.eval()
    return model


def bert(seed: int = 0, **changes: Any) -> PreTrainedModel:
    return make(BertConfig(**SMALL | changes), seed)


def batch() -> dict[str, Tensor]:
    """Rows of 9, 5 and 2 tokens, shape (3, 9)."""
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < torch.tensor([[9], [5], [2]])
    return {"input_ids": torch.where(mask, ids, 0), "attention_mask": mask.long()}


def loss_of(terms: FeatureTerms, student: Any, features: dict[str, Tensor], counts: Tensor | None = None) -> Tensor:
    _, seen = terms.outputs(student, features)
    return terms.loss(seen, features, terms.counts(features) if counts is None else counts)


def gradient(loss: Tensor, model: torch.nn.Module) -> Tensor:
    """All gradients in one vector; 0 where nothing flows."""
    weights = list(model.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    parts = [torch.zeros_like(weight) if part is None else part for weight, part in zip(weights, found, strict=True)]
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("term", TERMS)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_and_another_one_has(name: str, term: str) -> None:
    teacher, settings = make(CONFIGS[name]), Terms.model_validate(TERMS[term])
    same, other = copy.deepcopy(teacher), make(CONFIGS[name], seed=1)
    loss = loss_of(FeatureTerms(teacher, same, settings), same, batch())
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient(loss, same).abs().max() < 1e-5
    loss = loss_of(FeatureTerms(teacher, other, settings), other, batch())
    assert loss.item() > 1e-3
    assert gradient(loss, other).abs().max() > 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_looking_inside_changes_neither_logits_nor_model(name: str) -> None:
    teacher, student, features = make(CONFIGS[name]), make(CONFIGS[name], seed=1).train(), batch()
    usual = student.config._attn_implementation
    weights = copy.deepcopy(student.state_dict())
    terms = FeatureTerms(teacher, student, Terms.model_validate(EVERY))
    assert student.training
    assert not teacher.training
    torch.manual_seed(7)
    drawn, _ = terms.outputs(student, features)
    drawn.logits.sum().backward()
    student.eval()
    found, _ = terms.outputs(student, features)
    assert student.config._attn_implementation == usual
    assert all(torch.equal(value, weights[key]) for key, value in student.state_dict().items())
    ours = [hook for module in student.modules() for hook in module._forward_hooks.values()]
    assert not [hook for hook in ours if hook.__module__.startswith("components")]
    assert torch.allclose(found.logits, student(**features).logits, atol=1e-5)


@pytest.mark.parametrize("term", TERMS)
def test_padding_changes_no_value(term: str) -> None:
    teacher, student = bert(), bert(1)
    terms = FeatureTerms(teacher, student, Terms.model_validate(TERMS[term]))
    features = batch()
    short = {name: value[1:2, :5] for name, value in features.items()}
    padded = {name: value[1:2] for name, value in features.items()}
    unmasked = {"input_ids": short["input_ids"]}
    for one in (padded, unmasked):
        assert torch.allclose(loss_of(terms, student, one), loss_of(terms, student, short), rtol=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_micro_batches_add_up_to_the_full_batch(term: str) -> None:
    teacher, student, features = bert(), bert(1, hidden_size=8 if term != "attention" else 16), batch()
    terms = FeatureTerms(teacher, student, Terms.model_validate(TERMS[term]))
    counts = terms.counts(features)
    assert counts.tolist() == [16]
    parts = [{name: value[index : index + 1] for name, value in features.items()} for index in range(3)]
    both = torch.nn.ModuleList([student, terms])
    whole = gradient(loss_of(terms, student, features), both)
    added = torch.stack([gradient(loss_of(terms, student, part, counts), both) for part in parts]).sum(0)
    assert (whole - added).abs().max() < 1e-6 * whole.abs().max()


def by_hand(teacher: PreTrainedModel, student: PreTrainedModel, features: dict[str, Tensor], kind: str) -> Any:
    """transformers' own record of both models, without dropout."""
    for model in (teacher, student):
        model.set_attn_implementation("eager")
    return tuple(getattr(model(**features, **{f"output_{kind}": True}), kind) for model in (student, teacher))


def test_the_hidden_term_is_the_mean_over_valid_positions_and_width_summed_over_the_map() -> None:
    teacher, student, features = bert(), bert(1, num_hidden_layers=2), batch()
    terms = FeatureTerms(teacher, student, Terms.model_validate({"hidden": {"weight": 3.0, "layers": [None, 2]}}))
    mine, theirs = by_hand(teacher, student, features, "hidden_states")
    valid = features["attention_mask"].bool()
    expected = 3.0 * (mine[2][valid] - theirs[3][valid]).square().mean()
    assert torch.allclose(loss_of(terms, student, features), expected, rtol=1e-4)


def test_the_attention_term_is_the_divergence_averaged_over_heads_and_queries() -> None:
    teacher, student, features = bert(), bert(1), batch()
    layers = [0, None, None, 3]
    terms = FeatureTerms(teacher, student, Terms.model_validate({"attention": {"layers": layers}}))
    mine, theirs = by_hand(teacher, student, features, "attentions")
    expected = torch.zeros(())
    for layer in (0, 3):
        rows = []
        for row, length in enumerate([9, 5, 2]):
            p, q = theirs[layer][row, :, :length, :length], mine[layer][row, :, :length, :length]
            rows.append((p * (p / q).log()).sum(-1).mean(0))
        expected = expected + torch.cat(rows).mean()
    assert torch.allclose(loss_of(terms, student, features), expected, rtol=1e-4)


def test_relations_are_minilms() -> None:
    """softmax(A A^T / sqrt(d)) of one relation head, term by term, for models of different widths."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(1, 5, 8, generator=draw), torch.randn(1, 5, 12, generator=draw)
    expected = torch.zeros(())
    for head in range(2):
        a, b = student[0, :, head * 4 : head * 4 + 4], teacher[0, :, head * 6 : head * 6 + 6]
        q, p = torch.softmax(a @ a.T / 4**0.5, -1), torch.softmax(b @ b.T / 6**0.5, -1)
        expected = expected + (p * (p / q).log()).sum() / 2
    valid = torch.ones(1, 5, dtype=torch.bool)
    assert torch.allclose(relation_sum(student, teacher, valid, 2), expected, rtol=1e-4)


def test_attention_beyond_the_students_window_stays_finite_and_the_rest_is_compared() -> None:
    valid = torch.ones(1, 3, dtype=torch.bool)
    narrow = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4], [0.0, 0.5, 0.5]])[None, None]
    wide = torch.tensor([[0.3, 0.3, 0.4], [0.2, 0.4, 0.4], [0.6, 0.2, 0.2]])[None, None]
    assert attention_sum(narrow, wide, valid).item() == pytest.approx(0, abs=1e-6)
    assert 0 < attention_sum(wide, narrow, valid).item() < 10


def test_dropout_of_the_student_is_not_in_the_attention_that_is_compared() -> None:
    teacher = bert(attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    student = copy.deepcopy(teacher).train()
    terms = FeatureTerms(teacher, student, Terms.model_validate({"attention": {"layers": [0, None, None, None]}}))
    assert loss_of(terms, student, batch()).item() == pytest.approx(0, abs=1e-6)
    torch.manual_seed(0)
    assert not torch.allclose(terms.outputs(student, batch())[0].logits, student.eval()(**batch()).logits, atol=1e-3)


def test_a_narrower_student_learns_through_a_projection_that_is_no_part_of_it() -> None:
    teacher, student = bert(), bert(1, hidden_size=8, num_hidden_layers=2)
    before = set(student.state_dict())
    torch.manual_seed(3)
    terms = FeatureTerms(teacher, student, Terms.model_validate({"hidden": {}}))
    torch.manual_seed(3)
    again = FeatureTerms(teacher, student, Terms.model_validate({"hidden": {}}))
    assert {name: tuple(weight.shape) for name, weight in terms.named_parameters()} == {"projection.weight": (16, 8)}
    assert torch.equal(terms.projection.weight, again.projection.weight)
    assert set(student.state_dict()) == before
    assert not list(FeatureTerms(teacher, bert(1), Terms.model_validate({"hidden": {}})).parameters())
    optimiser = torch.optim.Adam([*student.parameters(), *terms.parameters()], lr=1e-2)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = loss_of(terms, student, batch())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(weight.grad is None for weight in teacher.parameters())


def test_adapters_put_in_later_are_seen_and_learn() -> None:
    teacher, student = bert(), bert(1)
    terms = FeatureTerms(teacher, student, Terms.model_validate(EVERY))
    plain = loss_of(terms, student, batch())
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query", "value"], init_lora_weights=False)
    adapted = get_peft_model(student, config).eval()
    assert not torch.allclose(loss_of(terms, adapted, batch()), plain, rtol=1e-3)
    loss_of(terms, adapted, batch()).backward()
    assert all(weight.grad is not None for name, weight in adapted.named_parameters() if "lora_" in name)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(3, 6, [1, 3, 5]), (4, 12, [2, 5, 8, 11]), (2, 3, [1, 2]), (1, 6, [5]), (4, 2, [0, 0, 1, 1]), (3, 3, [0, 1, 2])],
)
def test_the_teachers_layers_are_spread_evenly_and_end_at_the_last(
    student: int, teacher: int, expected: list[int]
) -> None:
    assert list(map_layers(None, student, teacher, "layers").values()) == expected


def test_the_map_is_told_in_words() -> None:
    settings = {"hidden": {"layers": [None, 3]}, "relation": {"heads": 2}}
    terms = FeatureTerms(bert(), bert(1, hidden_size=8, num_hidden_layers=2), Terms.model_validate(settings), [0, 3])
    assert terms.describe().splitlines() == [
        "the student's layers were the teacher's 0, 3",
        "hidden states: student 1 <- teacher 3; projected from width 8 to 16",
        "relations: student 1 <- teacher 3; 2 relation heads",
    ]


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        ({"hidden": {"layers": [0, 1]}}, {}, "terms.hidden.layers: expected one entry for each of the student's 4"),
        ({"hidden": {"layers": [0, 1, 2, 4]}}, {}, "terms.hidden.layers: the teacher has 4 layers, got layer 4"),
        ({"hidden": {"layers": [None] * 4}}, {}, "got only nulls"),
        ({"attention": {}}, {"num_attention_heads": 4}, "the student has 4, the teacher 2"),
        ({"relation": {"heads": 3}}, {}, "the student's queries are 16 wide, which 3 doesn't divide"),
        ({"relation": {"heads": 16}}, {"hidden_size": 8}, "the student's queries are 8 wide, which 16 doesn't divide"),
        ({"relation": {"student_layer": 4}}, {}, "terms.relation.student_layer: the student has 4 layers"),
        ({"relation": {"teacher_layer": 9}}, {}, "terms.relation.teacher_layer: the teacher has 4 layers"),
    ],
)
def test_maps_and_shapes_that_do_not_fit_are_refused(
    settings: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        FeatureTerms(bert(), bert(1, **changes), Terms.model_validate(settings))
    assert words in caught.value.message
    assert caught.value.remedy
    assert caught.value.kind == "parameters"


@pytest.mark.parametrize(
    ("config", "term", "words"),
    [
        (DebertaConfig(**SMALL, **DEBERTA), "attention", "the attention probabilities in layer 0 of the student"),
        (DebertaConfig(**SMALL, **DEBERTA), "relation", "the queries, keys and values in layer 3 of the student"),
        (XLMConfig(vocab_size=40, emb_dim=16, n_layers=4, n_heads=2), "hidden", "no list of 4 encoder layers"),
        (
            BartConfig(vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=2, max_position_embeddings=64),
            "hidden",
            "has an encoder and a decoder",
        ),
    ],
)
def test_architectures_that_do_not_show_what_a_term_needs_are_refused(
    config: PreTrainedConfig, term: str, words: str
) -> None:
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(UserError, match=words):
        FeatureTerms(model, copy.deepcopy(model), Terms.model_validate(TERMS[term]))


def test_prompts_are_refused_whether_they_are_there_at_once_or_come_later() -> None:
    teacher, student = bert(), bert(1)
    terms = FeatureTerms(teacher, student, Terms.model_validate({"hidden": {}}))
    prompted = get_peft_model(student, PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2))
    with pytest.raises(UserError, match="prompts are positions"):
        terms.outputs(prompted, batch())
    with pytest.raises(UserError, match="prompts are positions"):
        FeatureTerms(teacher, prompted, Terms.model_validate({"hidden": {}}))


def test_another_tokenizer_is_refused_and_the_same_one_passes_whatever_it_was_used_for(tiny_encoder: Any) -> None:
    one, same, other = (AutoTokenizer.from_pretrained(tiny_encoder) for _ in range(3))
    same(["good"], truncation=True, max_length=8, padding=True)
    check_tokenizers(same, one)
    other.add_tokens(["新"])
    with pytest.raises(UserError, match="their vocabularies differ"):
        check_tokenizers(other, one)
    same.backend_tokenizer.normalizer = None
    with pytest.raises(UserError, match="their rules for cutting texts"):
        check_tokenizers(same, one)
