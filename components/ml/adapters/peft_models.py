"""What peft adds to a classifier: adapters that can be merged into its weights, and prompts, which can't."""

from __future__ import annotations

import copy
from typing import Any, cast

from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptLearningConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
    get_peft_model,
)
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from components.errors import UserError
from components.ml.adapters.rehearsal import idle_parameters, padding_gap
from components.ml.adapters.targets import ia3_targets, linear_layers, lora_targets, matching
from components.ml.models.task_models import task_of
from components.ml.training.trainable import head_modules
from components.params.trainable import Adapters, Ia3, Lora, PrefixTuning, PromptTuning, PTuning

Classifier = PreTrainedModel | PeftModel
_TASK_TYPES = {
    "AutoModelForTokenClassification": TaskType.TOKEN_CLS,
    # peft's own class for questions drops token_type_ids, without which BERT can't tell question and context apart.
    "AutoModelForQuestionAnswering": None,
}
_REFUSALS = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What peft and the models raise where one has no place for the other."""
_PADDING_TOLERANCE = 1e-3
"""Greatest difference that padding may make to a logit: float32 rounding, not another token's state."""


def add_adapters(model: PreTrainedModel, settings: Adapters, base_name: str) -> PeftModel:
    """Freeze the model and add adapters or prompts, which train together with a copy of the classifier head.

    Two short texts go through the result once, so that what the architecture can't do is told before training.

    Args:
        base_name: what the adapter's config calls the model it belongs to.

    Raises:
        UserError: no layer has a name that the settings give, or the architecture doesn't allow the method.
    """
    task = task_of(model)
    if isinstance(settings, PromptTuning | PTuning | PrefixTuning) and not task.prompts:
        raise _refused(model, settings, f"prompts before a text would move the places that {task.name} reads.")
    config = _config(model, settings)
    own_gap = padding_gap(model)
    try:
        adapted = get_peft_model(model, config)
        idle = idle_parameters(adapted)
        gap = padding_gap(adapted)
    except _REFUSALS as error:
        raise _refused(model, settings, str(error).strip().split("\n")[0] or type(error).__name__) from error
    if idle:
        raise _refused(model, settings, f"{idle[0]} would not take part in the logits.")
    if gap > max(_PADDING_TOLERANCE, 10 * own_gap):
        raise _refused(model, settings, "its logits would depend on how far the other texts of a batch pad a text.")
    adapted.peft_config["default"].base_model_name_or_path = base_name  # peft puts the folder's path there
    return adapted


def can_merge(model: Classifier) -> bool:
    """Whether ``merged`` gives a plain model with the same logits."""
    return not (isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning)


def merged(model: Classifier) -> PreTrainedModel:
    """The plain model: adapters, where there are any, are added to the weights.

    Raises:
        TypeError: the model needs prompts.
    """
    if not isinstance(model, PeftModel):
        return model
    if not can_merge(model):
        raise TypeError(f"{model.peft_type} can't be merged into the weights; expected adapters inside the layers.")
    _put_back_head(model, trained=True)
    plain: PreTrainedModel = model.merge_and_unload()
    return plain


def without_adapters(model: PeftModel) -> PreTrainedModel:
    """A copy of the model as it was before adapters or prompts were added, with the head that it had."""
    copied = copy.deepcopy(model)
    _put_back_head(copied, trained=False)
    plain: Any = copied.unload() if can_merge(model) else copied.get_base_model()
    return cast(PreTrainedModel, plain)


def _put_back_head(model: PeftModel, *, trained: bool) -> None:
    """Put the trained head, or the one from before, where peft keeps both. Its own unloading takes the trained one,
    and fails on IA3 beside a head of several layers."""
    plain = model.get_base_model()
    for name, module in list(plain.named_children()):
        if isinstance(module, ModulesToSaveWrapper):
            kept = module.modules_to_save[model.active_adapter] if trained else module.original_module
            setattr(plain, name, kept)


def virtual_tokens(model: Classifier) -> int:
    """How many positions prompts take before each text; 0 without prompts."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return int(config.num_virtual_tokens) if isinstance(config, PromptLearningConfig) else 0


def check_length(model: Classifier, max_length: int) -> None:
    """Refuse prompts that don't fit into the model's context together with a text of ``max_length`` tokens.

    Raises:
        UserError: the model has fewer positions.
    """
    tokens, positions = virtual_tokens(model), _positions(model)
    if tokens and positions is not None and tokens + max_length > positions:
        raise UserError(
            f"{tokens} virtual tokens and data.max_length {max_length} need {tokens + max_length} positions; "
            f"the model has {positions}.",
            f"Set data.max_length to {positions - tokens} or less, or choose fewer tokens."
            if tokens < positions
            else f"Choose fewer than {positions} tokens.",
            "parameters",
        )


def _config(model: PreTrainedModel, settings: Adapters) -> PeftConfig:
    if isinstance(settings, Lora):
        return _lora(model, settings)
    if isinstance(settings, Ia3):
        targets, feedforward = ia3_targets(model, settings.ia3.targets, settings.ia3.feedforward)
        return IA3Config(
            task_type=_task_type(model),
            target_modules=targets,
            feedforward_modules=feedforward,
            fan_in_fan_out=_transposed(model, targets),
            modules_to_save=head_modules(model),
        )
    return _prompts(model, settings)


def _lora(model: PreTrainedModel, settings: Lora) -> LoraConfig:
    given = settings.lora
    targets = lora_targets(model, given.targets)
    return LoraConfig(
        task_type=_task_type(model),
        r=given.r,
        lora_alpha=given.alpha,  # type: ignore[arg-type]  # peft divides it by r; whole numbers are only its custom
        lora_dropout=given.dropout,
        target_modules=targets,
        use_dora=given.dora,
        use_rslora=given.rslora,
        fan_in_fan_out=_transposed(model, targets),
        modules_to_save=head_modules(model),
    )


def _prompts(model: PreTrainedModel, settings: Adapters) -> PromptLearningConfig:
    """Sizes are told, since peft looks for them under names that not every architecture has."""
    sizes = {"num_layers": model.config.num_hidden_layers, "num_attention_heads": model.config.num_attention_heads}
    common: dict[str, Any] = {"task_type": _task_type(model), "modules_to_save": head_modules(model), **sizes}
    if isinstance(settings, PrefixTuning):
        tokens = settings.prefix_tuning.tokens
        return PrefixTuningConfig(num_virtual_tokens=tokens, token_dim=model.config.hidden_size, **common)
    embeddings: Any = model.get_input_embeddings()
    width = embeddings.embedding_dim  # of what the text's tokens are, beside which prompts stand
    if isinstance(settings, PTuning):
        given = settings.p_tuning
        # peft compares endings of names: ModernBERT's `head` would be the network's `mlp_head` too.
        common["modules_to_save"] = [f"base_model.{name}" for name in head_modules(model)]
        return PromptEncoderConfig(
            num_virtual_tokens=given.tokens, encoder_hidden_size=given.hidden, token_dim=width, **common
        )
    return PromptTuningConfig(
        num_virtual_tokens=settings.prompt_tuning.tokens,  # type: ignore[union-attr]
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,  # better than noise (Lester et al. 2021)
        token_dim=width,
        **common,
    )


def _task_type(model: PreTrainedModel) -> TaskType | None:
    """What peft calls the task of a model; None for whatever passes all features on."""
    return _TASK_TYPES.get(task_of(model).head, TaskType.SEQ_CLS)


def _transposed(model: PreTrainedModel, targets: list[str]) -> bool:
    """Whether the layers keep their weights transposed, as GPT-2's do."""
    return any(isinstance(layer, Conv1D) for layer in matching(linear_layers(model), targets).values())


def _positions(model: Classifier) -> int | None:
    """How many tokens the model can tell the places of; None if it names no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if limit and name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit -= module.padding_idx + 1  # RoBERTa's relatives count from behind it
    return limit


def _refused(model: PreTrainedModel, settings: Adapters, why: str) -> UserError:
    """The error that names method and architecture, and what would do instead."""
    method = next(iter(type(settings).model_fields))
    instead = {
        "lora": "Name other layers in targets, or use `trainable: head` or `trainable: {last_layers: N}`.",
        "ia3": "Name layers in targets, or use `trainable: {lora: {}}`.",
        "prefix_tuning": "Use `trainable: {lora: {}}`, or `{prompt_tuning: {}}`, which needs less of the architecture.",
    }
    return UserError(
        f"trainable: {method} isn't possible with {type(model).__name__}: {why}",
        instead.get(method, "Use `trainable: {lora: {}}` or `{prefix_tuning: {}}`."),
        "parameters",
    )
