"""What frozen layers compute is reused with the same losses and gradients, or not at all, and said either way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    set_seed,
)

from components.ml.models.encoder import encoder_layers
from components.ml.reuse.activations import CollatorWithStates, RowsWithStates, agrees, compute
from components.ml.reuse.frozen import encoder_of, frozen_depth, quiet
from components.ml.reuse.replay import reusing
from components.ml.reuse.reusing import Reuse, reuse
from components.ml.training.objectives import FROZEN_STATES

LAYERS = 4
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": LAYERS}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(intermediate_size=32, **SIZES),
    "roberta": RobertaConfig(intermediate_size=32, pad_token_id=0, **SIZES),
    "distilbert": DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=32, n_layers=LAYERS),
    "deberta": DebertaV2Config(intermediate_size=32, position_biased_input=False, **DEBERTA, **SIZES),
    "modernbert": ModernBertConfig(
        intermediate_size=32,
        local_attention=4,
        layer_types=["full_attention", "sliding_attention"] * 2,
        attention_dropout=0.1,
        embedding_dropout=0.1,
        mlp_dropout=0.1,
        pad_token_id=0,
        **SIZES,
    ),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=LAYERS, pad_token_id=0),
    "llama": LlamaConfig(intermediate_size=32, attention_dropout=0.1, num_key_value_heads=1, pad_token_id=0, **SIZES),
}
SIDES = [(name, "right") for name in CONFIGS] + [("llama", "left")]


class SomeRows:
    """Rows of very different lengths."""

    def __init__(self, count: int, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(2, 14, (count,), generator=draw).tolist()
        self.ids = [torch.randint(5, 40, (length,), generator=draw).tolist() for length in self.lengths]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[index], "label": index % 2}


class Pad:
    """Batches padded with 0 on one side."""

    def __init__(self, side: str = "right") -> None:
        self.side = side

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        assert all(set(item) == {"input_ids", "label"} for item in items)
        ids = [item["input_ids"] for item in items]
        room = [[0] * (max(map(len, ids)) - len(one)) for one in ids]
        rows = list(zip(ids, room, strict=True))
        left = self.side == "left"
        return {
            "input_ids": torch.tensor([pad + one if left else one + pad for one, pad in rows]),
            "attention_mask": torch.tensor(
                [pad + [1] * len(one) if left else [1] * len(one) + pad for one, pad in rows]
            ),
            "labels": torch.tensor([item["label"] for item in items]),
        }


def build(config: PretrainedConfig, frozen: int) -> Any:
    """A random model in training mode, whose embeddings and first layers don't train."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():  # far from the small weights of a fresh model, so that mistakes show
        nn.init.normal_(weight, std=0.3) if weight.dim() > 1 else None
    model.base_model.requires_grad_(False)
    encoder_layers(model)[1][frozen:].requires_grad_(True)
    return model.train()


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that a patch would leave behind: attributes and hooks of every module."""
    kept: dict[str, Any] = {name: set(vars(module)) for name, module in model.named_modules()}
    kept |= {
        f"{name}.hooks": (len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    }
    return kept | {"probabilities": probabilities(model), "names": list(model.state_dict())}


def probabilities(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]


def learn(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a training step with live dropout above, and the gradients."""
    torch.manual_seed(7)
    model.zero_grad()
    features = {name: value for name, value in batch.items() if name != "labels"}
    loss = nn.functional.cross_entropy(model(**features).logits, batch["labels"])
    loss.backward()
    return loss.detach(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def assert_same_step(model: Any, depth: int, collate: Pad, folder: Path) -> None:
    rows = SomeRows(9)
    collected = CollatorWithStates(collate)
    with quiet(model, depth):
        activations = compute(model, depth, rows, collate, folder / "states", contextlib.nullcontext())
        assert agrees(model, depth, RowsWithStates(rows, activations), collate, contextlib.nullcontext())
        loss, gradients = learn(model, collate([rows[index] for index in range(9)]))
        with reusing(model, depth) as source:
            again, regained = learn(model, collected([RowsWithStates(rows, activations)[index] for index in range(9)]))
            assert source.positions == 9 * max(rows.lengths)
    torch.testing.assert_close(again, loss, atol=1e-5, rtol=1e-5)
    assert regained.keys() == gradients.keys() == {n for n, one in model.named_parameters() if one.requires_grad}
    for name, gradient in gradients.items():
        torch.testing.assert_close(regained[name], gradient, atol=1e-5, rtol=1e-4)
    assert max(float(one.abs().max()) for one in gradients.values()) > 1e-3


@pytest.mark.parametrize(("name", "side"), SIDES)
@pytest.mark.parametrize("depth", [1, 2, LAYERS])
def test_loss_and_gradients_are_those_of_computing_anew(name: str, side: str, depth: int, tmp_path: Path) -> None:
    model = build(CONFIGS[name], depth)
    assert frozen_depth(model) == depth
    before = state_of(model)
    assert_same_step(model, depth, Pad(side), tmp_path)
    assert state_of(model) == before


@pytest.mark.parametrize("name", ["bert", "deberta", "modernbert"])
def test_frozen_layers_are_not_computed_where_their_states_are_given(name: str, tmp_path: Path) -> None:
    model, rows = build(CONFIGS[name], 2), SomeRows(3)
    states = compute(model, 2, rows, Pad(), tmp_path / "states", contextlib.nullcontext())
    batch = CollatorWithStates(Pad())([RowsWithStates(rows, states)[index] for index in range(3)])
    encoder = encoder_of(model)
    with torch.no_grad():
        for weight in [*encoder.embeddings.parameters(), *encoder_layers(encoder)[1][:2].parameters()]:
            weight.fill_(torch.nan)  # would spoil whatever is computed with it
    with reusing(model, 2):
        assert learn(model, batch)[0].isfinite()
        assert learn(model, {name: value for name, value in batch.items() if name != FROZEN_STATES})[0].isnan()


def test_adapters_on_upper_layers_alone_leave_the_lower_ones_frozen(tmp_path: Path) -> None:
    plain = build(CONFIGS["bert"], 0)
    adapters = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        target_modules=["query"],
        layers_to_transform=[2, 3],
        lora_dropout=0.2,
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    model = get_peft_model(plain, adapters).train()
    assert frozen_depth(model) == 2
    before = state_of(model)
    assert_same_step(model, 2, Pad(), tmp_path)
    assert state_of(model) == before
    assert frozen_depth(get_peft_model(build(CONFIGS["bert"], 4), LoraConfig(target_modules=["query"]))) == 0


def test_whatever_trains_below_counts() -> None:
    bert, deberta = build(CONFIGS["bert"], 2), build(CONFIGS["deberta"], 2)
    bert.get_input_embeddings().requires_grad_(True)
    deberta.deberta.encoder.rel_embeddings.requires_grad_(True)  # all layers read them
    assert frozen_depth(bert) == frozen_depth(deberta) == 0
    one = build(CONFIGS["bert"], LAYERS)
    encoder_layers(one)[1][1].output.dense.bias.requires_grad_(True)
    assert frozen_depth(one) == 1


def test_virtual_tokens_leave_nothing_to_reuse() -> None:
    prompts = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2)
    assert frozen_depth(get_peft_model(build(CONFIGS["bert"], LAYERS), prompts)) == 0


def test_asking_what_is_frozen_draws_no_random_number_and_keeps_the_mode() -> None:
    model = build(CONFIGS["bert"], 2)
    model.bert.encoder.layer[0].eval()
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    frozen_depth(model)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_dropout_of_the_frozen_part_is_off_in_training_mode_and_back_afterwards(name: str) -> None:
    model, batch = build(CONFIGS[name], 2), Pad()([SomeRows(4)[index] for index in range(4)])
    features = {key: value for key, value in batch.items() if key != "labels"}
    outputs: list[list[Tensor]] = [[], []]
    for layer, kept in zip((1, 2), outputs, strict=True):
        encoder_layers(model)[1][layer].register_forward_hook(
            lambda _, __, out, kept=kept: kept.append(out[0] if isinstance(out, tuple) else out)
        )
    before = state_of(model)
    with torch.no_grad(), quiet(model, 2) as said:
        model(**features), model(**features)
    assert "2 of 4 layers are frozen" in said
    assert "dropout is off" in said
    (below, below_again), (above, above_again) = outputs
    assert torch.equal(below, below_again)
    assert not torch.equal(above, above_again)
    assert state_of(model) == before
    with torch.no_grad():
        model(**features), model(**features)
    assert not torch.equal(outputs[0][-1], outputs[0][-2])


def test_a_layer_that_thaws_during_reuse_is_noticed() -> None:
    model, batch = build(CONFIGS["bert"], 2), Pad()([SomeRows(4)[index] for index in range(4)])
    with reusing(model, 2):
        encoder_layers(model)[1][1].requires_grad_(True)
        with pytest.raises(AssertionError, match="thawed"):
            learn(model, batch)


Run = Callable[..., contextlib.AbstractContextManager[Reuse]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`reuse` with usual arguments."""
    usual = {"epochs": 3, "folder": tmp_path, "budget_gb": 1.0}

    def started(model: Any, collate: Pad | None = None, **other: Any) -> contextlib.AbstractContextManager[Reuse]:
        return reuse("top", model, SomeRows(30), SomeRows(8, 1), collate or Pad(), **(usual | other))

    return started


def train(model: Any, with_what: Reuse) -> None:
    """Three epochs with a validation pass after each."""
    set_seed(3)
    optimiser = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.05)
    for _ in range(3):
        for start in range(0, 30, 10):
            learn(model, with_what.collate([with_what.rows[index] for index in range(start, start + 10)]))
            optimiser.step()
        learn(model, with_what.collate([with_what.held_out[index] for index in range(8)]))


def test_a_phase_ends_in_the_same_weights_with_and_without_reuse(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [build(CONFIGS["bert"], 2), build(CONFIGS["bert"], 2)]
    for model, budget in zip(models, (1.0, 0.0), strict=True):
        with run(model, budget_gb=budget) as with_what:
            assert (FROZEN_STATES in with_what.rows[0]) == (FROZEN_STATES in with_what.held_out[0]) == bool(budget)
            train(model, with_what)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), atol=1e-5, rtol=1e-4)
    said = capsys.readouterr().out.splitlines()
    tokens = sum(SomeRows(30).lengths) + sum(SomeRows(8, 1).lengths)
    assert f"activations of {tokens:,} tokens, {tokens * 16 * 4 / 1e9:.3g} of 1 GB allowed, computed once in" in said[0]
    assert "times as fast" in said[1]
    assert said[2].endswith(
        f"aren't reused: they need {tokens * 16 * 4 / 1e9:.3g} GB, and runtime.reuse_gb allows 0 GB"
    )
    assert len(said) == 3
    assert not any(tmp_path.iterdir())


def test_the_budget_is_exact(run: Run) -> None:
    model = build(CONFIGS["bert"], 2)
    needed = (sum(SomeRows(30).lengths) + sum(SomeRows(8, 1).lengths)) * 16 * 4
    for short, reused in ((0, True), (1, False)):
        with run(model, budget_gb=(needed - short) / 1e9) as with_what:
            assert (FROZEN_STATES in with_what.rows[0]) == reused


@pytest.mark.parametrize(
    ("other", "reason"), [({"epochs": 1.0}, "each text is read but once"), ({"obstacle": "words are masked"}, "words")]
)
def test_where_it_cannot_pay_nothing_is_reused_and_dropout_is_off_all_the_same(
    other: dict[str, Any], reason: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build(CONFIGS["bert"], 2)
    with run(model, **other) as with_what:
        assert FROZEN_STATES not in with_what.rows[0]
        assert 0.0 in probabilities(model)
        assert not any(tmp_path.iterdir())
    said = capsys.readouterr().out
    assert "dropout is off" in said
    assert f"aren't reused: {reason}" in said


@pytest.mark.parametrize("case", ["positions-move-with-padding", "more-between-the-layers"])
def test_an_architecture_whose_layers_read_more_than_the_text_is_left_alone(
    case: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = case == "positions-move-with-padding"
    convolved = DebertaV2Config(intermediate_size=32, **DEBERTA, **SIZES, **{"conv_kernel_size": 3})
    model = build(CONFIGS["gpt2"], 2) if moved else build(convolved, 1)
    with run(model, Pad("left") if moved else Pad()) as with_what:
        assert FROZEN_STATES not in with_what.rows[0]
    assert "aren't reused: in this model they depend on more than the text itself" in capsys.readouterr().out


def test_training_of_all_layers_is_left_as_it_is(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = build(CONFIGS["bert"], 0)
    model.requires_grad_(True)
    before = state_of(model)
    with run(model) as with_what:
        assert state_of(model) == before
        assert FROZEN_STATES not in with_what.rows[0]
    assert capsys.readouterr().out == ""


def test_nothing_stays_behind_when_training_fails(run: Run, tmp_path: Path) -> None:
    model = build(CONFIGS["deberta"], 2)
    before = state_of(model)
    started = run(model)
    with pytest.raises(ValueError, match="either input_ids"), started as with_what:
        model(frozen_states=with_what.collate([with_what.rows[0]])[FROZEN_STATES])
    assert state_of(model) == before
    assert not any(tmp_path.iterdir())


def test_mixed_precision_agrees_within_its_own_accuracy(run: Run) -> None:
    model = build(CONFIGS["bert"], 2)
    batches = []
    for budget in (1.0, 0.0):
        with run(model, budget_gb=budget, dtype="bfloat16") as with_what, torch.autocast("cpu", torch.bfloat16):
            batches.append(learn(model, with_what.collate([with_what.rows[index] for index in range(10)]))[0])
            assert (FROZEN_STATES in with_what.rows[0]) == bool(budget)
    torch.testing.assert_close(batches[0], batches[1], atol=0.05, rtol=0.05)
