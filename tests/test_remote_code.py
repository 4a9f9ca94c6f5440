"""A base model that brings code of its own: refused unless it is trusted; what is exported needs none of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from components.component import COMPONENTS
from components.errors import UserError
from components.loader import load_params
from components.ml.models.folders import check_folder, trust_code
from components.params.project import Params
from flows import checks
from flows.tracking import models
from flows.tracking.predictor import Predictor
from tests.test_examples import EXAMPLES, write_data

OWN = """
from transformers import BertConfig, BertForSequenceClassification, BertModel

class OwnConfig(BertConfig):
    model_type = "own"

class OwnModel(BertModel):
    config_class = OwnConfig

class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
"""
CLASSES = {
    "AutoConfig": "own.OwnConfig",
    "AutoModel": "own.OwnModel",
    "AutoModelForSequenceClassification": "own.OwnClassifier",
}


@pytest.fixture
def params(
    tmp_path: Path,
    tiny_encoder: Path,
    texts: Callable[[int], list[tuple[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Params]:
    """A project whose base model brings code of its own; nothing is trusted before or afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    write_data(tmp_path / "data", tiny_encoder, texts(360))
    base = tmp_path / "data/base_model"
    (base / "own.py").write_text(OWN)
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": CLASSES, "architectures": ["OwnModel"]}
    (base / "config.json").write_text(json.dumps(config))
    settings = YAML(typ="safe").load(EXAMPLES / "full-partial-lora/params.yaml")
    settings["runtime"] |= {"threads": 1, "trust_remote_code": True}
    settings["data"]["max_length"] = 32
    settings["evaluate"]["bootstrap"]["resamples"] = 200
    YAML(typ="safe").dump(settings, tmp_path / "params.yaml")
    yield load_params(tmp_path / "params.yaml")
    trust_code(False)


def test_a_trusted_model_goes_all_the_way_and_is_exported_without_its_code(params: Params, tmp_path: Path) -> None:
    base = tmp_path / "data/base_model"
    with pytest.raises(UserError, match="brings code of its own") as caught:
        check_folder(base)
    assert "runtime.trust_remote_code: true" in caught.value.remedy
    trust_code(True)
    for component in COMPONENTS.values():
        component.run(params)
    config = json.loads(Path("artifacts/finetune/model/config.json").read_text())
    assert config["model_type"] == "own"
    assert config["auto_map"]["AutoModelForSequenceClassification"] == "own.OwnClassifier"
    assert Path("artifacts/finetune/model/own.py").is_file()
    assert str(tmp_path) not in json.dumps(config)

    trust_code(False)
    exported = Path("artifacts/export/int8/model")
    check = [path.name for path in exported.iterdir() if path.suffix == ".py"]
    assert (check, "auto_map" in json.loads((exported / "config.json").read_text())) == ([], False)
    logged: Any = SimpleNamespace(artifact_location=str(tmp_path), model_id="m-0123456789abcdef0123456789abcdef")
    models.save(tmp_path / "saved", exported, 32, ["text"], logged, "0123456789abcdef0123456789abcdef")
    shutil.rmtree(base)
    labels, logits = Predictor(str(tmp_path / "saved"), "it")(["good", "这个手机很好"])
    assert (labels, logits.shape, np.isfinite(logits).all()) == (["negative", "positive"], (2, 2), True)


def test_the_code_of_a_tokenizer_is_never_run(params: Params, tmp_path: Path) -> None:
    trust_code(True)
    base = tmp_path / "data/base_model"
    check_folder(base)
    config = json.loads((base / "config.json").read_text())
    config["auto_map"]["AutoTokenizer"] = "own.OwnTokenizer"
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"AutoTokenizer\); the code of a tokenizer is never run"):
        check_folder(base)


def test_what_is_registered_needs_no_code(params: Params, tmp_path: Path) -> None:
    trust_code(True)
    checks._check_code(tmp_path, params)
    nothing = params.model_copy(update={"export": params.export.model_copy(update={"formats": []})})
    with pytest.raises(UserError, match="nothing is exported") as caught:
        checks._check_code(tmp_path, nothing)
    assert "export.formats: [int8]" in caught.value.remedy
