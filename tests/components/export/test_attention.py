"""Attention as one operator: the same logits, and nothing else is taken for an attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from components.export.attention import fuse_attention

GRAPH = """<ir_version: 10, opset_import: ["" : 20]>
graph (float[texts, tokens, 8] q, float[texts, tokens, 8] k, float[texts, tokens, 8] v,
       float[texts, 1, tokens, tokens] mask)
    => (float[texts, tokens, 8] final)
<int64[4] cut = {{0, 0, 2, 4}}, int64[3] joined = {{0, 0, 8}}, float scale = {{0.37}}, float[8] bias = {bias},
 float[8] other = {bias}, float[texts, tokens, 8] qb, float[texts, tokens, 8] kb, float[texts, tokens, 8] vb,
 float[texts, tokens, 2, 4] q2, float[texts, tokens, 2, 4] k2, float[texts, tokens, 2, 4] v2,
 float[texts, 2, tokens, 4] q4, float[texts, 2, 4, tokens] k4, float[texts, 2, tokens, 4] v4,
 float[texts, 2, tokens, tokens] scores, float[texts, 2, tokens, tokens] scaled,
 float[texts, 2, tokens, tokens] masked, float[texts, 2, tokens, tokens] shares,
 float[texts, 2, tokens, 4] mixed, float[texts, tokens, 2, 4] turned, float[texts, tokens, 8] out>
{{
    qb = Add (q, bias) kb = Add (k, other) vb = Add (v, bias)
    q2 = Reshape (qb, cut) k2 = Reshape (kb, cut) v2 = Reshape ({values}, cut)
    q4 = Transpose <perm = [0, 2, 1, 3]> (q2)
    k4 = Transpose <perm = [0, 2, 3, 1]> (k2)
    v4 = Transpose <perm = [0, 2, 1, 3]> (v2)
    scores = MatMul (q4, k4)
    scaled = {scaling} (scores, scale)
    masked = Add (scaled, mask)
    shares = Softmax <axis = {axis}> (masked)
    mixed = MatMul (shares, v4)
    turned = Transpose <perm = [0, 2, 1, 3]> (mixed)
    out = Reshape (turned, joined)
    final = Neg (out)
}}"""


def graph(scaling: str = "Mul", axis: int = -1, values: str = "vb") -> ir.Model:
    bias = "{0.5, -1.0, 2.0, 0.25, 0.0, 1.0, -2.0, 3.0}"
    return ir.from_onnx_text(GRAPH.format(scaling=scaling, axis=axis, values=values, bias=bias))


def result(model: ir.Model) -> np.ndarray:
    draw = np.random.default_rng(2)
    inputs: dict[str, Any] = {name: draw.normal(size=(3, 5, 8)).astype(np.float32) for name in "qkv"}
    mask = np.where(np.arange(5) < np.array([[5], [3], [1]]), 0, np.finfo(np.float32).min).astype(np.float32)
    inputs["mask"] = np.broadcast_to(mask[:, None, None, :], (3, 1, 5, 5)).copy()
    proto = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def operations(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(("values", "left"), [("vb", []), ("v", ["Add", "Add"])], ids=["biases too", "one has no bias"])
def test_an_attention_becomes_one_operator_with_the_same_result(values: str, left: list[str]) -> None:
    model = graph(values=values)
    expected = result(model)
    assert fuse_attention(model) == 1
    assert operations(model) == [*left, "MultiHeadAttention", "Neg"]
    assert np.allclose(result(model), expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{"scaling": "Sub"}, {"axis": 1}], ids=["not scaled", "over the heads"])
def test_what_is_no_attention_stays_as_it_is(changes: dict[str, Any]) -> None:
    model = graph(**changes)
    before = ir.to_proto(model).SerializeToString()
    assert fuse_attention(model) == 0
    assert ir.to_proto(model).SerializeToString() == before


def test_an_attention_that_something_else_looks_into_stays_as_it_is() -> None:
    model = graph()
    (shares,) = (node.outputs[0] for node in model.graph if node.op_type == "Softmax")
    model.graph.outputs.append(shares)
    assert fuse_attention(model) == 0


@pytest.mark.parametrize(
    ("architecture", "fused"), [("bert", 2), ("roberta", 2), ("distilbert", 2), ("deberta-v2", 0), ("modernbert", 0)]
)
def test_encoders_are_exported_with_their_own_logits(architecture: str, fused: int, tmp_path: Path) -> None:
    """Through the whole conversion; an attention of another form stays as PyTorch wrote it."""
    import onnx
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from components.export.convert import convert
    from components.ml.models.onnx_classifier import load_onnx
    from components.ml.models.scoring import load_classifier, predict_logits
    from tests.conftest import save_tiny_encoder

    torch.manual_seed(4)
    own = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32} if architecture == "distilbert" else {}
    usual = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(architecture, vocab_size=60, pad_token_id=0, **(own or usual))
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_encoder(tmp_path / "tokenizer"))
    if architecture != "bert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "onnx", 32)
    nodes = [node.op_type for node in onnx.load(tmp_path / "onnx/model.onnx").graph.node]
    assert nodes.count("MultiHeadAttention") == fused
    texts = ["good", "这个手机很好", "the phone was awful " * 4]
    expected = predict_logits(*load_classifier(tmp_path / "model"), texts, max_length=32)
    found = predict_logits(*load_onnx(tmp_path / "onnx"), texts, max_length=32)
    assert np.abs(expected - found).max() < 1e-5
