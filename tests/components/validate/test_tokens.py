"""Lengths in tokens, and a base model that doesn't fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import UserError
from components.validate.tokens import token_counter


def test_lengths_count_special_tokens_and_are_not_cut(base_model: Path) -> None:
    count = token_counter(base_model)
    assert count(["很好用", "good", "", "好" * 100]) == [5, 3, 2, 102]
    assert count([]) == []


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer that can be loaded"):
        token_counter(tmp_path)
