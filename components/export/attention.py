"""Puts one operator of onnxruntime in the place of each attention, whose many small ones cost as much as a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

FUSED = "MultiHeadAttention"
DOMAIN = "com.microsoft"
QUERY, BIAS, MASK = 0, 3, 5
"""Inputs of the operator: queries of shape (texts, tokens, width), biases of shape (3 * width,) of queries, keys and
values, and what is added to the scores, of shape (texts, 1 or heads, tokens, tokens)."""
_SPLIT, _SPLIT_KEYS = (0, 2, 1, 3), (0, 2, 3, 1)


@dataclass(frozen=True)
class _Attention:
    """``softmax(scale * Q K^T + mask) V`` as it stands in a graph; ``result`` has shape (texts, tokens, width)."""

    projected: tuple[ir.Value, ir.Value, ir.Value]
    mask: ir.Value
    scale: float
    heads: int
    result: ir.Value


def fuse_attention(model: ir.Model) -> int:
    """Replace every attention by ``MultiHeadAttention`` with the same numbers, to rounding; gives how many there were.

    Anything that isn't exactly an attention of this form stays as it is.
    """
    found = list(_attentions(model))
    for number, attention in enumerate(found):
        _replace(model.graph, attention, number)
    if found:
        model.opset_imports[DOMAIN] = 1
        RemoveUnusedNodesPass()(model)
    return len(found)


def _attentions(model: ir.Model) -> Iterator[_Attention]:
    for node in model.graph:
        if node.op_type == "Softmax" and (attention := _read(node)) is not None:
            yield attention


def _read(softmax: ir.Node) -> _Attention | None:
    """The attention around a softmax; None where something in it is otherwise."""
    masked = _made_by(softmax.inputs[0], "Add")
    scaled = masked and _made_by(masked.inputs[0], "Mul")
    scores = scaled and _made_by(scaled.inputs[0], "MatMul")
    weighted = _only_user(softmax, "MatMul")
    joined = weighted and _only_user(weighted, "Transpose", perm=_SPLIT)
    result = joined and _only_user(joined, "Reshape")
    if not (masked and scaled and scores and weighted and joined and result):
        return None
    factor, mask = _constant(scaled.inputs[1]), masked.inputs[1]
    split = [
        _split(scores.inputs[0], _SPLIT),
        _split(scores.inputs[1], _SPLIT_KEYS),
        _split(weighted.inputs[1], _SPLIT),
    ]
    if factor is None or factor.size != 1 or mask is None or mask.shape is None or mask.shape.rank() != 4:
        return None
    if softmax.attributes.get_int("axis", -1) not in (-1, 3) or result.outputs[0].is_graph_output():
        return None
    heads = {each[1] for each in split if each is not None}
    shape = result.outputs[0].shape
    if None in split or len(heads) != 1 or shape is None or shape.rank() != 3:
        return None
    query, key, value = (each[0] for each in split if each is not None)
    return _Attention((query, key, value), mask, float(factor.item()), heads.pop(), result.outputs[0])


def _split(value: ir.Value | None, permutation: tuple[int, ...]) -> tuple[ir.Value, int] | None:
    """What was cut into heads and turned, of shape (texts, tokens, width), and the number of heads."""
    turned = _made_by(value, "Transpose")
    if turned is None or tuple(turned.attributes["perm"].as_ints()) != permutation:
        return None
    cut = _made_by(turned.inputs[0], "Reshape")
    if cut is None or cut.inputs[0] is None or cut.outputs[0].shape is None or cut.outputs[0].shape.rank() != 4:
        return None
    heads, whole = cut.outputs[0].shape[2], cut.inputs[0].shape
    return (cut.inputs[0], heads) if isinstance(heads, int) and whole is not None and whole.rank() == 3 else None


def _replace(graph: ir.Graph, attention: _Attention, number: int) -> None:
    result = attention.result
    before = result.producer()
    assert before is not None
    inputs, bias = _without_biases(graph, attention.projected, number)
    attributes: dict[str, Any] = {"num_heads": attention.heads, "scale": attention.scale}
    node = ir.node(FUSED, [*inputs, bias, None, attention.mask], attributes, domain=DOMAIN)
    (attended,) = node.outputs
    assert result.dtype is not None
    attended.name, attended.dtype, attended.shape = f"attended_{number}", result.dtype, result.shape
    graph.insert_after(before, node)
    ir.convenience.replace_all_uses_with(result, attended)


def _without_biases(
    graph: ir.Graph, projected: tuple[ir.Value, ir.Value, ir.Value], number: int
) -> tuple[tuple[ir.Value, ...], ir.Value | None]:
    """The products alone, and their biases as one input of the operator; None where one has none."""
    added = [_made_by(value, "Add") for value in projected]
    biases = [_constant(node.inputs[1]) if node else None for node in added]
    products = [node.inputs[0] for node in added if node and node.inputs[0] is not None]
    given = [bias for bias in biases if bias is not None and bias.ndim == 1]
    if len(products) < len(projected) or len(given) < len(projected):
        return projected, None
    bias = ir.Value(name=f"attention_bias_{number}", const_value=ir.tensor(np.concatenate(given)))
    graph.register_initializer(bias)
    return tuple(products), bias


def _made_by(value: ir.Value | None, operation: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operation else None


def _only_user(node: ir.Node, operation: str, perm: tuple[int, ...] | None = None) -> ir.Node | None:
    """The one node that reads the result; None if others do, or it is another operation."""
    users = list(node.outputs[0].uses())
    if len(users) != 1 or node.outputs[0].is_graph_output():
        return None
    user = users[0].node
    fits = user.op_type == operation and (perm is None or tuple(user.attributes["perm"].as_ints()) == perm)
    return user if fits else None


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()
