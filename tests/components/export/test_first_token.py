"""Computing the classified token alone: the same result, and only where nothing else is read."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from components.export.first_token import keep_first_token

HEAD = """<ir_version: 10, opset_import: ["" : 20]>
graph (float[texts, tokens, 4] hidden) => (float[texts, 4] chosen)
<int64 first = {{0}}, float[4, 4] weights = {weights}, float[4] bias = {numbers},
 float[4] scale = {numbers}, float[4] shift = {numbers},
 float[texts, tokens, 4] mixed, float[texts, tokens, 4] product, float[texts, tokens, 4] moved,
 float[texts, tokens, 4] summed, float[texts, tokens, 4] normal>
{{
    mixed = Softmax <axis = 1> (hidden)
    product = MatMul (mixed, weights)
    moved = Add (product, bias)
    summed = Add (moved, mixed)
    normal = LayerNormalization <axis = 2> (summed, scale, shift)
    {rest}
}}"""
FIRST = "chosen = Gather <axis = 1> (normal, first)"
LAST = "last = Constant <value_int = -1> () chosen = Gather <axis = 1> (normal, last)"
ALL = "one = Gather <axis = 1> (normal, first) axes = Constant <value_ints = [1]> () "
ALL += "mean = ReduceMean <keepdims = 0> (normal, axes) chosen = Add (one, mean)"


def graph(rest: str) -> ir.Model:
    weights = "{" + ", ".join(str(number / 7) for number in range(-8, 8)) + "}"
    return ir.from_onnx_text(HEAD.format(rest=rest, weights=weights, numbers="{0.5, -1.0, 2.0, 0.25}"))


def result(model: ir.Model) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    hidden = np.random.default_rng(2).normal(size=(3, 5, 4)).astype(np.float32)
    return np.asarray(session.run(None, {"hidden": hidden})[0])


def narrow(model: ir.Model) -> list[str]:
    """The operations whose result has one token."""
    named = [(node.op_type, node.outputs[0].shape) for node in model.graph]
    return [name for name, shape in named if shape is not None and shape.rank() == 3 and shape[1] == 1]


def test_what_leads_to_the_first_token_alone_is_computed_for_it_alone() -> None:
    model = graph(FIRST)
    expected = result(model)
    keep_first_token(model)
    assert np.array_equal(result(model), expected)
    assert sorted(narrow(model)) == ["Add", "Add", "Gather", "LayerNormalization", "MatMul"]


@pytest.mark.parametrize("rest", [LAST, ALL], ids=["another token", "all tokens too"])
def test_a_model_that_reads_other_tokens_stays_as_it_is(rest: str) -> None:
    model = graph(rest)
    before = ir.to_proto(model).SerializeToString()
    keep_first_token(model)
    assert ir.to_proto(model).SerializeToString() == before
