"""Which parameters a phase trains."""

from __future__ import annotations

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from components.errors import UserError
from components.ml.students import encoder_layers


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules outside the base model that hold parameters: the classifier head."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def train_all(model: PreTrainedModel) -> None:
    """Every parameter trains."""
    model.requires_grad_(True)


def train_encoder(model: PreTrainedModel) -> None:
    """All encoder layers and everything above them train; the embeddings stay as they are."""
    train_last_layers(model, len(encoder_layers(model)[1]))


def train_last_layers(model: PreTrainedModel, count: int) -> None:
    """The last ``count`` encoder layers and everything above them train; 0 leaves the head alone.

    Above the layers are the pooler, where the architecture has one, and the classifier head.

    Raises:
        UserError: the model has fewer layers.
    """
    _, layers = encoder_layers(model)
    if count > len(layers):
        raise UserError(
            f"trainable: last_layers: the model has {len(layers)} layers, got {count}.",
            f"Choose at most {len(layers)}, or `trainable: all`.",
            "parameters",
        )
    model.requires_grad_(False)
    for module in [*layers[len(layers) - count :], *_above(model)]:
        module.requires_grad_(True)


def _above(model: PreTrainedModel) -> list[nn.Module]:
    pooler = getattr(model.base_model, "pooler", None)
    heads = [model.get_submodule(name) for name in head_modules(model)]
    return heads if pooler is None else [pooler, *heads]


def add_lora(
    model: PreTrainedModel, *, r: int, alpha: float, dropout: float, targets: list[str] | None, base_name: str
) -> PeftModel:
    """Low-rank adapters (Hu et al. 2021) on the named layers; the classifier head trains with them and is saved.

    Args:
        targets: endings of module names; None takes peft's choice for the architecture.
        base_name: what the adapter's config calls the model it belongs to.

    Raises:
        UserError: no module has such a name.
    """
    known = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    missing = sorted(set(targets or []) - known)
    if missing:
        raise UserError(
            f"trainable: lora: targets: the model has no linear layer named {', '.join(missing)}.",
            f"It has: {', '.join(sorted(known))}.",
            "parameters",
        )
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides it by r; whole numbers are only its custom
        lora_dropout=dropout,
        target_modules=targets,
        modules_to_save=head_modules(model),
        base_model_name_or_path=base_name,
    )
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = base_name
    return adapted


def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The plain model: adapters, where there are any, are added to the weights."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """How many parameters train, of how many."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
