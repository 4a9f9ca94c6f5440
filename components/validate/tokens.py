"""Lengths in tokens of the base model's tokenizer, and whether the model takes the lengths asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.errors import UserError

_OFFSET_MODELS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert")  # positions start after the padding id
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def check_base_model(folder: Path, max_length: int) -> None:
    """Check that a folder holds a model and a tokenizer, and that the model takes texts of ``max_length`` tokens.

    Reads config.json only, so that it can be asked before anything starts.

    Raises:
        UserError: what is missing, or that ``max_length`` is more than the model has positions for.
    """
    if not folder.is_dir():
        remedy = (
            "Name a folder with a transformers model in teacher.base; `stillhouse data pull` gets the demonstration's."
        )
        raise UserError(f"The base model's folder {folder} does not exist (teacher.base).", remedy, "parameters")
    positions = _positions(_config(folder))
    if positions is not None and max_length > positions:
        raise UserError(
            f"data.max_length is {max_length}, but the base model {folder} takes at most {positions} tokens.",
            f"Set data.max_length to {positions} or less, or choose a base model with a longer context.",
            "parameters",
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise _no_tokenizer(folder, f"none of {', '.join(TOKENIZER_FILES)} is there")


def token_counter(folder: Path) -> Callable[[Sequence[str]], list[int]]:
    """A function from texts to their lengths in tokens, special tokens included, before any truncation.

    Raises:
        UserError: the folder's tokenizer can't be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise _no_tokenizer(folder, str(error).strip().splitlines()[0]) from None

    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        encoded = tokenizer(
            list(texts), truncation=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return [len(ids) for ids in encoded["input_ids"]]

    return count


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    remedy = "teacher.base must be a folder that transformers' save_pretrained wrote."
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"The base model {folder} has no config.json.", remedy, "parameters") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.", remedy, "parameters") from None
    return config


def _positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model has positions for; None if it names no limit (relative positions)."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions and config.get("model_type") in _OFFSET_MODELS:
        return int(positions) - int(config.get("pad_token_id") or 0) - 1
    return int(positions) if positions else None


def _no_tokenizer(folder: Path, why: str) -> UserError:
    return UserError(
        f"The base model {folder} has no tokenizer that can be loaded: {why}.",
        "Save the tokenizer into the folder beside the model (tokenizer.save_pretrained).",
        "parameters",
    )
