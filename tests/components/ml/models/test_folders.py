"""A base model that can't be used is refused before anything starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.errors import UserError
from components.ml.models.folders import check_folder, content_of, count_layers
from components.ml.models.onnx_classifier import load_onnx
from components.ml.models.scoring import load_plain


def test_a_sound_base_model_passes(tiny_encoder: Path) -> None:
    check_folder(tiny_encoder, 64)


def test_more_tokens_than_the_model_has_positions_are_refused(tiny_encoder: Path) -> None:
    with pytest.raises(UserError, match=r"max_length is 65, but .* takes at most 64") as caught:
        check_folder(tiny_encoder, 65)
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
    (tmp_path / "model.safetensors").touch()
    check_folder(tmp_path, fits)
    with pytest.raises(UserError):
        check_folder(tmp_path, too_long)


def test_a_model_without_a_limit_takes_any_length(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "spiece.model").touch()
    (tmp_path / "model.safetensors").touch()
    check_folder(tmp_path, 100_000)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"num_hidden_layers": 12}, 12),
        ({"n_layers": 6}, 6),
        ({"num_layers": 8, "num_decoder_layers": 2}, 8),
        ({}, None),
    ],
)
def test_layers_are_counted_as_each_model_family_names_them(
    tmp_path: Path, config: dict[str, int], layers: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert count_layers(tmp_path) == layers


def test_a_missing_folder_configuration_weights_or_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        check_folder(tmp_path / "nowhere", 16)
    with pytest.raises(UserError, match=r"has no config\.json"):
        check_folder(tmp_path, 16)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        check_folder(tmp_path, 16)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is not a JSON object"):
        check_folder(tmp_path, 16)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        check_folder(tmp_path, 16)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match="no tokenizer"):
        check_folder(tmp_path, 16)


def test_the_key_that_names_the_folder_is_told(tiny_encoder: Path, tmp_path: Path) -> None:
    for folder, length in ((tmp_path / "nowhere", 16), (tmp_path, 16), (tiny_encoder, 10_000)):
        with pytest.raises(UserError, match=r"\(data\.models\.small\)"):
            check_folder(folder, length, "data.models.small")


def test_labels_belong_to_what_a_model_is(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    assert content_of(folder) == content_of(tiny_encoder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "other", "1": "labels"}}))
    assert content_of(folder) != content_of(tiny_encoder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "deep/head.PT", "model.joblib", "x.pkl"])
def test_a_pickle_anywhere_in_the_folder_is_refused_even_beside_safetensors(
    tiny_encoder: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\x80\x04")
    for load in (check_folder, load_plain, load_onnx):
        with pytest.raises(UserError, match=name) as caught:
            load(folder)
        assert "save_pretrained" in caught.value.remedy


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_refused_and_never_run(tiny_encoder: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((folder / name).read_text()) | {"auto_map": {"AutoConfig": "own.Own"}}
    (folder / name).write_text(json.dumps(config))
    for load in (check_folder, load_plain):
        with pytest.raises(UserError, match=f"{name} has auto_map"):
            load(folder)
    assert not ran.exists()
