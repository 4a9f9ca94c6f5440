"""Drops what the last layer would compute for tokens that the classifier never reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from components.export.attention import FUSED, MASK, QUERY

_TOKENS = 1  # the axis of hidden states of shape (texts, tokens, width)
_MASKED = 2  # the axis of queries in masks of shape (texts, heads, tokens, tokens)
_EACH_TOKEN_ALONE = {
    "Add",
    "Div",
    "Dropout",
    "Erf",
    "Gelu",
    "LayerNormalization",
    "MatMul",
    "Mul",
    "Relu",
    "Sub",
    "Tanh",
}


def keep_first_token(model: ir.Model) -> None:
    """Where a classifier reads ``hidden[:, 0]`` alone, compute what leads there for that token alone.

    That goes back to the last attention or, where that is one operator, to its queries: with 3 layers a quarter of all
    products fall away, and the logits stay the same. A model that reads all tokens stays as it is.
    """
    narrowed: list[ir.Node] = []
    for node in reversed(list(model.graph)):
        if _treats_each_token_alone(node) and all(
            _takes_first(user, place, narrowed) for user, place in node.outputs[0].uses()
        ):
            narrowed.append(node)
    index = ir.Value(name="first_token", const_value=ir.tensor(np.zeros(1, np.int64), name="first_token"))
    kept: dict[ir.Value, ir.Value] = {}
    for node in narrowed:
        for place, axis in _axes(node).items():
            taken = node.inputs[place]
            if taken is not None and taken.producer() not in narrowed:
                if taken not in kept:
                    kept[taken] = _first(model.graph, taken, index, axis)
                node.replace_input_with(place, kept[taken])
    if kept:
        model.graph.register_initializer(index)
    for node in narrowed:
        _narrow(node.outputs[0], _TOKENS)


def _treats_each_token_alone(node: ir.Node) -> bool:
    """Whether the first token of what the node makes comes from the first tokens of what it reads."""
    if node.op_type not in (*_EACH_TOKEN_ALONE, FUSED) or len(node.outputs) != 1 or not _has_tokens(node.outputs[0]):
        return False
    if node.outputs[0].is_graph_output() or not node.outputs[0].uses():
        return False
    if node.op_type == FUSED:
        return _has_tokens(node.inputs[QUERY])
    if node.op_type == "LayerNormalization":
        return node.attributes.get_int("axis", -1) in (-1, 2) and _has_tokens(node.inputs[0])
    if node.op_type == "MatMul":
        return _has_tokens(node.inputs[0]) and _rank(node.inputs[1]) == 2
    return all(_rank(taken) in (0, 1) or _has_tokens(taken) for taken in node.inputs)


def _axes(node: ir.Node) -> dict[int, int]:
    """The inputs of a node of which the first token alone is needed, and the axis of tokens in each."""
    if node.op_type != FUSED:
        return {place: _TOKENS for place, taken in enumerate(node.inputs) if _has_tokens(taken)}
    mask = node.inputs[MASK]
    assert mask is not None
    assert mask.shape is not None
    return {QUERY: _TOKENS} | ({} if mask.shape[_MASKED] == 1 else {MASK: _MASKED})


def _takes_first(user: ir.Node, place: int, narrowed: Sequence[ir.Node]) -> bool:
    """Whether a node needs the first token alone of its input at ``place``."""
    return place in _axes(user) if user in narrowed else _reads_first(user)


def _reads_first(node: ir.Node) -> bool:
    """Whether the node takes the first token of each text."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != _TOKENS or node.inputs[1] is None:
        return False
    index = node.inputs[1].const_value
    return index is not None and index.size == 1 and int(index.numpy().item()) == 0


def _has_tokens(value: ir.Value | None) -> bool:
    """Whether the value is computed and has the shape (texts, tokens, width)."""
    return value is not None and _rank(value) == 3 and value.producer() is not None


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else value.shape.rank()


def _first(graph: ir.Graph, taken: ir.Value, index: ir.Value, axis: int) -> ir.Value:
    """The first token of each text, right after all of them are there; the same shape, with 1 along ``axis``."""
    producer = taken.producer()
    assert producer is not None
    node = ir.node("Gather", [taken, index], {"axis": axis})
    (first,) = node.outputs
    assert taken.dtype is not None
    first.dtype, first.shape = taken.dtype, taken.shape
    _narrow(first, axis)
    graph.insert_after(producer, node)
    return first


def _narrow(value: ir.Value, axis: int) -> None:
    assert value.shape is not None
    value.shape = ir.Shape([1 if place == axis else size for place, size in enumerate(value.shape)])
