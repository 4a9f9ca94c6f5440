"""The tokenizer of the tiny encoder, which knows entity markers, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.ml.tasks.relation_classification import MARKERS


@pytest.fixture
def tokenizer(tiny_encoder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer of its own for each test: some change it."""
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_encoder)
    found.add_special_tokens({"additional_special_tokens": list(MARKERS)}, replace_extra_special_tokens=False)
    return found
