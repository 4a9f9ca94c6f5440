"""Model folders: ordinary transformers folders, safetensors only, no paths of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from components.errors import UserError


def load_base(folder: Path, labels: list[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A pretrained encoder under a new classifier head for ``labels``, in float32, and its tokenizer.

    Raises:
        UserError: the folder is missing, holds no safetensors weights or isn't a transformers folder.
    """
    check_folder(folder)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    config = AutoConfig.from_pretrained(folder, local_files_only=True, **names)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # a head for other labels is replaced
    )
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def check_folder(folder: Path) -> None:
    """Refuse a base model that can't be loaded, before anything else starts.

    Raises:
        UserError: as :func:`load_base`.
    """
    if not folder.is_dir():
        raise UserError(
            f"teacher.base: {folder} is not a folder.",
            "Name a folder in transformers' format inside data/ (`stillhouse data pull` gets the demonstration's).",
            "parameters",
        )
    for name in ("config.json", "model.safetensors|model.safetensors.index.json"):
        if not any((folder / choice).exists() for choice in name.split("|")):
            raise UserError(
                f"teacher.base: {folder} has no {name.split('|')[0]}.",
                "Save the model there with `save_pretrained`; only safetensors weights are read, never pickles.",
                "parameters",
            )


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer so that ``from_pretrained`` loads them, with the same bytes anywhere.

    Raises:
        UserError: a weight isn't finite, since training diverged.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in model.state_dict().values()):
        raise UserError(
            "Training diverged: some weights are not finite numbers.",
            "Lower the phase's lr or raise its warmup in params.yaml.",
            "parameters",
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        for key in ("_name_or_path", "name_or_path", "local_files_only", "is_local"):
            settings.pop(key, None)
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The plain model: adapters, where there are any, are added to the weights."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model  # type: ignore[no-any-return]


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter (peft's format, safetensors); lists are sorted, since peft keeps them as sets."""
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a model card that repeats the versions
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings = {key: sorted(set(value)) if isinstance(value, list) else value for key, value in settings.items()}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
