"""Drops what the last layer would compute for tokens that the classifier never reads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_TOKENS = 1  # the axis of hidden states of shape (texts, tokens, width)
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

    That goes back to the last attention: with 3 layers a quarter of all products fall away, and the logits stay the
    same. A model that reads all tokens stays as it is.
    """
    narrowed: list[ir.Node] = []
    for node in reversed(list(model.graph)):
        if _treats_each_token_alone(node) and all(user in narrowed or _reads_first(user) for user in _users(node)):
            narrowed.append(node)
    index = ir.Value(name="first_token", const_value=ir.tensor(np.zeros(1, np.int64), name="first_token"))
    kept: dict[ir.Value, ir.Value] = {}
    for node in narrowed:
        for place, taken in enumerate(node.inputs):
            if taken is not None and _has_tokens(taken) and taken.producer() not in narrowed:
                if taken not in kept:
                    kept[taken] = _first(model.graph, taken, index)
                node.replace_input_with(place, kept[taken])
    if kept:
        model.graph.register_initializer(index)
    for node in narrowed:
        _narrow(node.outputs[0])


def _treats_each_token_alone(node: ir.Node) -> bool:
    """Whether the first token of what the node makes comes from the first tokens of what it reads."""
    if node.op_type not in _EACH_TOKEN_ALONE or len(node.outputs) != 1 or not _has_tokens(node.outputs[0]):
        return False
    if node.outputs[0].is_graph_output() or not node.outputs[0].uses():
        return False
    if node.op_type == "LayerNormalization":
        return node.attributes.get_int("axis", -1) in (-1, 2) and _has_tokens(node.inputs[0])
    if node.op_type == "MatMul":
        return _has_tokens(node.inputs[0]) and _rank(node.inputs[1]) == 2
    return all(_rank(taken) in (0, 1) or _has_tokens(taken) for taken in node.inputs)


def _reads_first(node: ir.Node) -> bool:
    """Whether the node takes the first token of each text."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != _TOKENS or node.inputs[1] is None:
        return False
    index = node.inputs[1].const_value
    return index is not None and index.size == 1 and int(index.numpy().item()) == 0


def _users(node: ir.Node) -> list[ir.Node]:
    return [user for user, _ in node.outputs[0].uses()]


def _has_tokens(value: ir.Value | None) -> bool:
    """Whether the value is computed and has the shape (texts, tokens, width)."""
    return value is not None and _rank(value) == 3 and value.producer() is not None


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else value.shape.rank()


def _first(graph: ir.Graph, taken: ir.Value, index: ir.Value) -> ir.Value:
    """The first token of each text, right after all of them are there; shape (texts, 1, width)."""
    producer = taken.producer()
    assert producer is not None
    node = ir.node("Gather", [taken, index], {"axis": _TOKENS})
    (first,) = node.outputs
    assert taken.dtype is not None
    first.dtype, first.shape = taken.dtype, taken.shape
    _narrow(first)
    graph.insert_after(producer, node)
    return first


def _narrow(value: ir.Value) -> None:
    assert value.shape is not None
    value.shape = ir.Shape([value.shape[0], 1, value.shape[2]])
