"""Checks of a model folder that need no PyTorch, so that a run can refuse one before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

from components.errors import UserError


def check_folder(folder: Path, max_length: int | None = None) -> None:
    """Refuse a base model that can't be loaded, or that can't read texts of ``max_length`` tokens.

    Raises:
        UserError: the folder is missing, isn't in transformers' format, holds no safetensors weights,
            or the model's context is shorter than ``max_length``.
    """
    if not folder.is_dir():
        raise UserError(
            f"teacher.base: expected a model folder, but there is no folder {folder}.",
            "Name a folder in transformers' format inside data/ (`stillhouse data pull` gets the demonstration's).",
            "parameters",
        )
    for choices in (
        ("config.json",),
        ("model.safetensors", "model.safetensors.index.json"),
        ("tokenizer.json", "vocab.txt", "tokenizer_config.json"),
    ):
        if not any((folder / name).exists() for name in choices):
            raise UserError(
                f"teacher.base: {folder} has no {choices[0]}.",
                "Save model and tokenizer there with `save_pretrained`; only safetensors weights are read, no pickles.",
                "parameters",
            )
    context = _config(folder).get("max_position_embeddings")
    if max_length is not None and isinstance(context, int) and max_length > context:
        raise UserError(
            f"data.max_length: {max_length} tokens are more than the {context} that the model in {folder} can read.",
            f"Set it to {context} at most.",
            "parameters",
        )


def _config(folder: Path) -> dict[str, object]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"teacher.base: {folder / 'config.json'} is not JSON: {error}.", "Save the model again.", "parameters"
        ) from None
    return dict(config)
