"""Lengths in tokens, and a base model that doesn't fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.errors import UserError
from components.validate.tokens import check_base_model, token_counter


def test_lengths_count_special_tokens_and_are_not_cut(base_model: Path) -> None:
    count = token_counter(base_model)
    assert count(["很好用", "good", "", "好" * 100]) == [5, 3, 2, 102]
    assert count([]) == []


def test_a_sound_base_model_passes(base_model: Path) -> None:
    check_base_model(base_model, 64)


def test_more_tokens_than_the_model_has_positions_are_refused(base_model: Path) -> None:
    with pytest.raises(UserError, match=r"max_length is 65, but .* takes at most 64") as caught:
        check_base_model(base_model, 65)
    assert caught.value.kind == "parameters"


@pytest.mark.parametrize(
    ("config", "fits", "too_long"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512, 513),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024, 1025),
    ],
)
def test_positions_are_read_as_each_model_family_means_them(
    tmp_path: Path, config: dict[str, object], fits: int, too_long: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.json").write_text("{}")
    check_base_model(tmp_path, fits)
    with pytest.raises(UserError):
        check_base_model(tmp_path, too_long)


def test_a_model_without_a_limit_takes_any_length(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "spiece.model").write_text("")
    check_base_model(tmp_path, 100_000)


def test_a_missing_folder_configuration_or_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        check_base_model(tmp_path / "nowhere", 16)
    with pytest.raises(UserError, match=r"has no config\.json"):
        check_base_model(tmp_path, 16)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        check_base_model(tmp_path, 16)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer"):
        check_base_model(tmp_path, 16)


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer that can be loaded"):
        token_counter(tmp_path)
