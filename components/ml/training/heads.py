"""Other heads over a model's encoder: language modelling and further tasks, all sharing one encoder.

Nothing is copied: the encoder of the other model is the very module of the target model, so what trains one trains
both, and afterwards the target is an ordinary transformers model again.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)
from transformers.utils import logging

from components.errors import UserError
from components.ml.models.entity_markers import PLACES as MARKER_PLACES
from components.ml.models.folders import loading
from components.ml.models.task_models import auto_model, configure, new_model
from components.ml.tasks.task import Task


def is_causal(model: PreTrainedModel) -> bool:
    """Whether the architecture's language model predicts the next token, since it has no masked form."""
    return type(model.config) not in MODEL_FOR_MASKED_LM_MAPPING


def language_model(model: PreTrainedModel, base_folder: Path | None) -> PreTrainedModel:
    """The masked language model over the encoder of ``model``; the causal one where :func:`is_causal`.

    Args:
        model: the target, a sequence classifier; it isn't changed.
        base_folder: the checkpoint to take the head from, as far as it has one of this architecture and width;
            what it lacks is drawn at random under torch's global seed. Which of the two happened is printed.

    Raises:
        UserError: the architecture has no language model, or one that sees the tokens it should predict.
    """
    causal = is_causal(model)
    auto = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    if (causal and type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING) or model.config.is_encoder_decoder:
        raise _lacks(model, "language model over an encoder, which objective mlm trains")
    config = copy.deepcopy(model.config)
    if base_folder is not None and _same_family(base_folder, config):
        language, drawn = _pretrained(auto, base_folder, config)
    else:
        language, drawn = auto.from_config(config, trust_remote_code=loading()["trust_remote_code"]), None
    _share_encoder(language, model)
    if causal and _looks_ahead(language):
        raise _lacks(model, "causal attention: its language model would see the tokens that it should predict")
    print(f"language modelling head: {_origin(language, drawn)}", flush=True)
    return language


def task_model(model: PreTrainedModel, task: Task, labels: list[str]) -> PreTrainedModel:
    """A model for another task over the encoder of ``model``, under a new head drawn under torch's global seed.

    Args:
        model: the target; it isn't changed.
        task: of the other model.
        labels: names of its logits.

    Raises:
        UserError: the architecture has no such head, or the task needs tokens that the target's vocabulary lacks.
    """
    if type(model.config) not in auto_model(task)._model_mapping or model.config.is_encoder_decoder:
        raise _lacks(model, f"head for {task.name} over an encoder")
    if task.markers and not hasattr(model.config, MARKER_PLACES):
        raise UserError(
            f"A task of {task.name} needs markers in the vocabulary, which only a project of that task has.",
            f"Set data.task to {task.name}, or leave such tasks out of the phases' `tasks`.",
            "parameters",
        )
    other = new_model(configure(copy.deepcopy(model.config), task, labels))
    _share_encoder(other, model)
    return other


def head_parameters(model: PreTrainedModel) -> list[str]:
    """Names of the parameters that belong to the head alone: neither the encoder's nor tied to its embeddings."""
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in encoder]


def _share_encoder(other: PreTrainedModel, model: PreTrainedModel) -> None:
    """Put the target's encoder in the place of the other's own, and tie to its embeddings what the config ties."""
    place = model.base_model_prefix
    if not hasattr(model, place) or type(getattr(other, place, None)) is not type(model.base_model):
        raise _lacks(model, f"encoder that {type(other).__name__} could share")
    setattr(other, place, model.base_model)
    other.tie_weights()
    torch.nn.Module.to(other, device=model.device, dtype=model.dtype)
    other.train(model.training)


def _pretrained(auto: Any, folder: Path, config: PreTrainedConfig) -> tuple[PreTrainedModel, set[str]]:
    """The language model of a checkpoint, and the names of the parameters that it lacks or has in another shape."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it calls a checkpoint without the head corrupted; ours says what was drawn
    try:
        model, report = auto.from_pretrained(
            folder,
            config=config,
            **loading(),
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)
    return model, {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}


def _origin(language: PreTrainedModel, drawn: set[str] | None) -> str:
    own = head_parameters(language)
    new = own if drawn is None else [name for name in own if name in drawn]
    if not own:
        return "the word embeddings themselves"
    if not new:
        return "taken from the base model"
    rest = "" if len(new) == len(own) else ", the rest from the base model"
    return f"drawn at random ({', '.join(new)}){rest}"


def _same_family(folder: Path, config: PreTrainedConfig) -> bool:
    return bool(AutoConfig.from_pretrained(folder, **loading()).model_type == config.model_type)


@torch.no_grad()
def _looks_ahead(language: PreTrainedModel) -> bool:
    """Whether a prediction changes with a token that comes after it."""
    training = language.training
    language.eval()
    ids = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], device=language.device) % language.config.vocab_size
    logits = language(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    language.train(training)
    return not torch.allclose(logits[0, :3], logits[1, :3], atol=1e-4)


def _lacks(model: PreTrainedModel, what: str) -> UserError:
    return UserError(
        f"The architecture {model.config.model_type} ({type(model).__name__}) has no {what}.",
        "Leave such phases out, or use a base model of another architecture, such as BERT, RoBERTa or ModernBERT.",
        "parameters",
    )
