"""Model folders: ordinary transformers folders, safetensors only, no paths of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from components.errors import UserError
from components.ml.models.entity_markers import add_markers
from components.ml.models.folders import check_folder, loading
from components.ml.models.scoring import refuse_adapter
from components.ml.models.task_models import auto_model, configure, refuse_architecture
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task


def load_base(
    folder: Path, labels: list[str], key: str = "teacher.base", task: Task = TASKS[DEFAULT]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A pretrained encoder under a new head for a task with these labels, in float32, and its tokenizer.

    Args:
        key: what names the folder in params.yaml, for errors.
        task: what the head is for; tokens that it marks texts with are put into the vocabulary.

    Raises:
        UserError: the folder is missing, holds no safetensors weights, isn't a transformers folder or needs prompts, or
            the architecture has no such head.
    """
    check_folder(folder, key=key)
    refuse_adapter(folder)
    config = configure(AutoConfig.from_pretrained(folder, **loading()), task, labels)
    if task.name != DEFAULT:
        refuse_architecture(config, task, key)
    model = auto_model(task).from_pretrained(
        folder,
        config=config,
        **loading(),
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # a head for other labels is replaced
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    _know_padding(model, tokenizer, folder)
    if task.markers:
        add_markers(model, tokenizer)
    return model, tokenizer


def _know_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Decoders such as GPT-2 come without a padding token, and couldn't classify batches: the last token stands in."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise UserError(
                f"The tokenizer of {folder} has neither a padding token nor an end-of-text token.",
                "Save it with a pad_token.",
                "parameters",
            )
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer so that ``from_pretrained`` loads them, with the same bytes anywhere.

    Raises:
        UserError: a weight isn't finite, since training diverged.
    """
    _check_finite(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        for key in ("_name_or_path", "name_or_path", "local_files_only", "is_local"):
            settings.pop(key, None)
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter (peft's format, safetensors); lists are sorted, since peft keeps them as sets.

    Raises:
        UserError: a weight isn't finite, since training diverged.
    """
    _check_finite(model)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a model card that repeats the versions
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings = {key: sorted(set(value)) if isinstance(value, list) else value for key, value in settings.items()}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_finite(model: nn.Module) -> None:
    if not all(bool(torch.isfinite(weight).all()) for weight in model.state_dict().values()):
        raise UserError(
            "Training diverged: some weights are not finite numbers.",
            "Lower the phase's lr or raise its warmup in params.yaml.",
            "parameters",
        )
