"""What a training stage leaves of its model: plain weights, and whatever adapters or prompts belong to them."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.ml.adapters.peft_models import can_merge, merged, without_adapters
from components.ml.models.scoring import ADAPTER
from components.ml.models.storage import save, save_adapter


def save_trained(
    trained: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, output: Path, *, keep_base: bool = False
) -> None:
    """Write ``model/`` under ``output``, and whatever belongs to the model's adapters or prompts.

    A plain model is ``model/`` alone. Adapters are merged into ``model/`` and kept in ``adapter/``. Prompts stay in
    ``model/adapter/``, and ``model/`` is the model that they were trained on: `load_classifier` loads both.
    Adapters are merged in place, so ``trained`` is of no use afterwards.

    Args:
        keep_base: write the model that the adapters belong to into ``base/``, since it lies nowhere else.

    Raises:
        UserError: a weight isn't finite, since training diverged.
    """
    if isinstance(trained, PeftModel) and not can_merge(trained):
        save(without_adapters(trained), tokenizer, output / "model")
        save_adapter(trained, output / "model" / ADAPTER)
        return
    if isinstance(trained, PeftModel):
        save_adapter(trained, output / ADAPTER)
        if keep_base:
            save(without_adapters(trained), tokenizer, output / "base")
    save(merged(trained), tokenizer, output / "model")
