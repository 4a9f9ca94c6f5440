"""The export stage on tiny models: the same logits from the file, int8 only where it is good enough, the same bytes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from components.errors import UserError
from components.export import convert as convert_module
from components.export import quantise as quantise_module
from components.export import rows as rows_module
from components.export.stage import run
from components.ml.models.loading import load, megabytes, parameters
from components.ml.models.onnx_classifier import load_onnx
from components.ml.models.scoring import label_names, load_classifier, predict_logits
from components.params.export import Export
from components.params.stages import Runtime

LAYERS = 3
TEXTS = ["good", "这个手机很好", "the phone was awful it was a broken story " * 3, "", "film"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A classifier with a random head."""
    import torch

    folder = tmp_path_factory.mktemp("tuned") / "model"
    torch.manual_seed(1)
    labels: Any = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, **labels)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


def export(lora: Path, splits: Path, output: Path, **settings: Any) -> dict[str, Any]:
    output.mkdir()
    run(
        train=splits / "train",
        validation=splits / "validation",
        test=splits / "test",
        lora=lora,
        runtime=Runtime(threads=1),
        max_length=32,
        settings=Export(**settings),
        output=output,
    )
    told: dict[str, Any] = json.loads((output / "export.json").read_text(encoding="utf-8"))
    return told


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tuned: Path, tiny_splits: Path) -> Path:
    output = tmp_path_factory.mktemp("exported") / "export"
    export(tuned, tiny_splits, output, tolerance=1.0)
    return output


@pytest.fixture
def converted(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversion, which takes seconds, is that of ``exported``."""

    def copy(source: Path, target: Path, max_length: int) -> None:
        shutil.copytree(exported / "onnx/model", target)

    monkeypatch.setattr(convert_module, "convert", copy)


def test_the_file_gives_the_logits_of_the_model_for_any_number_of_texts_of_any_length(
    exported: Path, tuned: Path
) -> None:
    for texts in (TEXTS, TEXTS[:1], [TEXTS[2]] * 9):
        expected = predict_logits(*load_classifier(tuned), texts, max_length=32)
        found = predict_logits(*load_onnx(exported / "onnx/model"), texts, max_length=32)
        assert np.abs(found - expected).max() < 1e-5
    told = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert told["onnx"]["parity"]["rows"] == 40
    assert told["onnx"]["parity"]["largest_difference"] < 1e-5


def test_both_files_know_their_classes_their_parameters_and_their_size(exported: Path, tuned: Path) -> None:
    import torch

    count = parameters(load_classifier(tuned)[0])
    for name in ("onnx", "int8"):
        folder = exported / name / "model"
        model, _ = load(folder, torch.device("cpu"))
        assert (label_names(model), parameters(model)) == (["negative", "positive"], count)
        assert AutoTokenizer.from_pretrained(folder).model_max_length == 32
        assert megabytes(folder) == (folder / "model.onnx").stat().st_size / 1e6
    assert megabytes(exported / "int8/model") < megabytes(exported / "onnx/model")


def test_int8_is_really_in_integers_and_close(exported: Path, tuned: Path) -> None:
    import onnx

    graph = onnx.load(exported / "int8/model/model.onnx").graph
    products = [node for node in graph.node if node.op_type == "MatMul"]
    scaled = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert sum(set(node.input) <= scaled for node in products) == LAYERS * 6  # all with weights
    expected = predict_logits(*load_classifier(tuned), TEXTS, max_length=32)
    found = predict_logits(*load_onnx(exported / "int8/model"), TEXTS, max_length=32)
    assert 0 < np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


@pytest.mark.parametrize("place", ["onnx", "int8"])
def test_the_logits_of_a_text_do_not_depend_on_its_neighbours(exported: Path, place: str) -> None:
    model = load_onnx(exported / place / "model")
    together = predict_logits(*model, TEXTS * 3, max_length=32)
    alone = np.concatenate([predict_logits(*model, [text], max_length=32) for text in TEXTS * 3])
    assert np.abs(together - alone).max() < 1e-5


def test_the_last_layer_computes_the_classified_token_alone(exported: Path) -> None:
    import onnx

    graph = onnx.load(exported / "onnx/model/model.onnx").graph
    shapes = {value.name: [part.dim_value for part in value.type.tensor_type.shape.dim] for value in graph.value_info}
    products = [node.output[0] for node in graph.node if node.op_type == "MatMul"]
    assert [shapes[name][1] == 1 for name in products[-4:]] == [False, True, True, True]


def test_nothing_but_onnxruntime_and_a_tokenizer_is_needed(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported / "int8/model/model.onnx"))
    tokenizer = AutoTokenizer.from_pretrained(exported / "int8/model")
    features = tokenizer(TEXTS[:3], padding=True, return_tensors="np")
    (logits,) = session.run(["logits"], {taken.name: features[taken.name] for taken in session.get_inputs()})
    assert logits.shape == (3, 2)


def test_the_same_model_gives_the_same_bytes_and_no_path_is_in_them(
    exported: Path, tuned: Path, tiny_splits: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(tuned, moved)
    export(moved, tiny_splits, tmp_path / "again", tolerance=1.0)
    for path in (path for path in exported.rglob("*") if path.is_file()):
        data = (tmp_path / "again" / path.relative_to(exported)).read_bytes()
        assert data == path.read_bytes(), path
        assert not re.search(rb"site-packages|/tmp/|stack_trace", data), path


@pytest.mark.usefixtures("converted")
def test_where_int8_loses_too_much_the_float_file_stands_in(
    tuned: Path, tiny_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ruin(source: Path, target: Path, per_channel: bool, texts: object) -> None:
        shutil.copyfile(source / "model.onnx", target)

    figures = iter([{"accuracy": 0.9, "megabytes": 2.0}, {"accuracy": 0.88, "megabytes": 1.0}] * 2)
    monkeypatch.setattr(quantise_module, "_quantise", ruin)
    monkeypatch.setattr(quantise_module, "_figures", lambda folder, key, quality: next(figures))
    told = export(tuned, tiny_splits, tmp_path / "export", tolerance=0.01)
    assert told["int8"]["chosen"] == "per_channel"  # which lost nothing
    figures = iter([{"accuracy": 0.9, "megabytes": 2.0}, *[{"accuracy": 0.89, "megabytes": 1.0}] * 2])
    told = export(tuned, tiny_splits, tmp_path / "just", tolerance=0.01)
    assert told["int8"]["chosen"] != "float"  # what may be lost, whatever 0.9 - 0.89 is in binary
    figures = iter([{"accuracy": 0.9, "megabytes": 2.0}, *[{"accuracy": 0.88, "megabytes": 1.0}] * 2])
    told = export(tuned, tiny_splits, tmp_path / "again", tolerance=0.01)
    assert told["int8"]["chosen"] == "float"
    assert told["int8"]["content"] == told["onnx"]["content"]
    assert "stands in" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "again/int8").iterdir()) == ["model"]


@pytest.mark.usefixtures("converted")
@pytest.mark.parametrize(("formats", "folders"), [([], []), (["int8"], ["int8"]), (["onnx"], ["onnx"])])
def test_only_the_formats_asked_for_are_written(
    tuned: Path, tiny_splits: Path, tmp_path: Path, formats: list[str], folders: list[str]
) -> None:
    told = export(tuned, tiny_splits, tmp_path / "export", formats=formats, tolerance=1.0)
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == sorted([*folders, "export.json"])
    assert sorted(told) == folders


def test_other_logits_than_the_models_are_refused(
    tuned: Path, tiny_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_graph = convert_module._export

    def other(model: Any, tokenizer: Any) -> Any:
        model.classifier.bias.data += 0.01
        return export_graph(model, tokenizer)

    monkeypatch.setattr(convert_module, "_export", other)
    with pytest.raises(UserError, match=r"differ by up to 0\.01") as raised:
        export(tuned, tiny_splits, tmp_path / "export", formats=["onnx"])
    assert "export.formats: []" in raised.value.remedy


@pytest.mark.usefixtures("converted")
def test_logits_that_are_no_numbers_are_refused(
    tuned: Path, tiny_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "predict_rows", lambda *_, **__: [np.full((1, 2), np.nan, np.float32)] * 40)
    with pytest.raises(UserError, match="differ by up to nan"):
        export(tuned, tiny_splits, tmp_path / "export", formats=["onnx"])


def test_what_pytorch_can_not_export_is_refused_with_the_reason(
    tuned: Path, tiny_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("data-dependent control flow\nlong trace")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(UserError, match="can't be exported to ONNX: RuntimeError: data-dependent control flow"):
        export(tuned, tiny_splits, tmp_path / "export")
    prompted = tmp_path / "prompted"
    shutil.copytree(tuned, prompted)
    (prompted / "adapter").mkdir()
    with pytest.raises(UserError, match="prompts"):
        export(prompted, tiny_splits, tmp_path / "other")
