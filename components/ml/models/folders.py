"""Checks of a model folder that need no PyTorch, so that a run can refuse one before anything starts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from components.errors import UserError

BASE = "teacher.base"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
_TOKENIZERS = {"AutoTokenizer", "AutoProcessor"}
_code_is_trusted = False
# How the model families of transformers name their number of encoder layers.
_LAYERS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer", "encoder_layers")
_OFFSET_MODELS = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
)  # positions start after the padding id


def check_folder(folder: Path, max_length: int | None = None, key: str = BASE) -> None:
    """Refuse a model that can't be loaded, or that can't read texts of ``max_length`` tokens.

    Args:
        folder: what should hold the model.
        max_length: tokens, special ones included; None asks for no length.
        key: the key of params.yaml that names the folder.

    Raises:
        UserError: the folder is missing, isn't in transformers' format, holds a pickle, code, no safetensors weights
            or no tokenizer, or the model's context is shorter than ``max_length``.
    """
    if not folder.is_dir():
        raise _refused(
            f"The model folder {folder} does not exist ({key}).",
            "Name a folder with a transformers model; `stillhouse data pull` gets the demonstration's.",
        )
    refuse_code(folder, key)
    check_format(folder, max_length, key)


def check_format(folder: Path, max_length: int | None = None, key: str = BASE) -> None:
    """What ``check_folder`` refuses of a folder that is there, but for pickles and code: who copies leaves them out.

    Raises:
        UserError: the folder isn't in transformers' format, holds no safetensors weights or no tokenizer, or the
            model's context is shorter than ``max_length``.
    """
    positions = context_length(folder, key)
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise _refused(
            f"The model {folder} ({key}) has no {WEIGHTS[0]}.",
            "Save the model there with `save_pretrained`; only safetensors weights are read, no pickles.",
        )
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise no_tokenizer(folder, f"none of {', '.join(TOKENIZERS)} is there", key)
    if max_length is not None and positions is not None and max_length > positions:
        raise _refused(
            f"data.max_length is {max_length}, but the model {folder} ({key}) takes at most {positions} tokens.",
            f"Set data.max_length to {positions} or less, or choose a model with a longer context.",
        )


def refuse_code(folder: Path, key: str = "") -> None:
    """Refuse a model folder that could run code of its own: a pickle, or classes that stand beside the weights.

    Raises:
        UserError: it names the file and what to do.
    """
    named = f"{folder} ({key})" if key else str(folder)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLES:
            raise _refused(
                f"The model {named} holds {path.relative_to(folder)}, which may be a pickle: loading it runs code.",
                "Only safetensors weights are read. If you trust the file, convert it elsewhere with "
                "`AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)`; if model.safetensors is there "
                f"already, delete {path.name}.",
            )
    refuse_classes(folder, key)


def refuse_classes(folder: Path, key: str = BASE) -> None:
    """Refuse a model folder whose configuration names classes that stand beside the weights.

    Those of a model are let pass after ``trust_code(True)``, those of a tokenizer never: who serves the exported model
    needs its tokenizer.

    Raises:
        UserError: it names the file and the classes.
    """
    named = f"{folder} ({key})" if key else str(folder)
    for name in ("config.json", "tokenizer_config.json"):
        classes = set(map(str, dict(_json(folder / name).get("auto_map") or {})))
        tokenizer = classes & _TOKENIZERS if name == "config.json" else classes
        refused = tokenizer if _code_is_trusted else classes
        if refused:
            remedy = "If transformers knows the architecture itself, delete the key auto_map; else choose another model"
            if not tokenizer:
                remedy += ", or, where you have read its code and trust it, set runtime.trust_remote_code: true"
            raise _refused(
                f"The model {named} brings code of its own: {name} has auto_map ({', '.join(sorted(refused))})"
                f"{'; the code of a tokenizer is never run' if tokenizer else ''}.",
                f"{remedy}.",
            )


def trust_code(wanted: bool) -> None:
    """Let models bring code of their own, or not, in all of this process from now on; at first they may not."""
    global _code_is_trusted
    _code_is_trusted = wanted


def brings_code(folder: Path) -> bool:
    """Whether a model's configuration names classes that stand beside the weights."""
    return bool(_json(folder / "config.json").get("auto_map"))


def loading() -> dict[str, bool]:
    """How ``from_pretrained`` loads models and configurations: offline, code of their own only where it is trusted."""
    return {"local_files_only": True, "trust_remote_code": _code_is_trusted}


def content_of(folder: Path) -> str:
    """sha256 over names and bytes of a model folder's files: the model's identity wherever results are published."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; nothing where there is none, which others tell."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def count_layers(folder: Path) -> int | None:
    """How many encoder layers a model folder's configuration names; None if it names none.

    Raises:
        UserError: the folder has no configuration that can be read.
    """
    config = _config(folder, BASE)
    return next((config[name] for name in _LAYERS if isinstance(config.get(name), int)), None)


def no_tokenizer(folder: Path, why: str, key: str = BASE) -> UserError:
    """The error for a folder without a tokenizer that can be loaded."""
    return _refused(
        f"The model {folder} ({key}) has no tokenizer that can be loaded: {why}.",
        "Save the tokenizer into the folder beside the model (tokenizer.save_pretrained).",
    )


def _config(folder: Path, key: str) -> dict[str, Any]:
    path = folder / "config.json"
    remedy = f"{key} must be a folder that transformers' save_pretrained wrote."
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _refused(f"The model {folder} ({key}) has no config.json.", remedy) from None
    except ValueError as error:
        raise _refused(f"{path} is not JSON: {error}.", remedy) from None
    if not isinstance(config, dict):
        raise _refused(f"{path} is not a JSON object, but {config!r:.40}.", remedy)
    return config


def context_length(folder: Path, key: str = BASE) -> int | None:
    """How many tokens the model in a folder can read; None if it names no limit.

    Raises:
        UserError: the folder isn't in transformers' format.
    """
    return _positions(_config(folder, key))


def _positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model has positions for; None if it names no limit (relative positions)."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions and config.get("model_type") in _OFFSET_MODELS:
        return int(positions) - int(config.get("pad_token_id") or 0) - 1
    return int(positions) if positions else None


def _refused(message: str, remedy: str) -> UserError:
    return UserError(message, remedy, "parameters")
