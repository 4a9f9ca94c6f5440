"""Models by their name on the Hugging Face hub: taken from the cache of the machine, or downloaded into it once."""

from __future__ import annotations

import re
from pathlib import Path

from components.errors import UserError

_NAME = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")
# What a transformers folder needs; no pickles and no code.
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def is_name(name: str) -> bool:
    """Whether this could be a model's name on a hub, such as ``OWNER/MODEL``."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def snapshot(name: str) -> Path:
    """The folder of the hub's cache that holds the newest version of a model, downloaded now if it isn't there.

    With HF_HUB_OFFLINE=1 nothing is downloaded. This is the one place that asks a hub for anything: runs never do.

    Raises:
        UserError: the model can't be had (``data``).
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # no network, no such model, no access: each with an error of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"Expected a folder with a base model, or the name of one on the Hugging Face hub; there is no folder "
            f"{name}, and the hub's model can't be had: {reason}",
            "Mind the spelling, OWNER/MODEL; without a network, download it elsewhere "
            f"(`hf download {name} --local-dir {name.split('/')[-1]}`) and give that folder.",
            kind="data",
        ) from None
