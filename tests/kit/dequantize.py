"""A quantized model without its rounding: the same weights in floating point, so that a law is not lost in noise.

Activations that are quantized, as they come or by fixed scales, pass as they are; integer products become products of
numbers. What is left is the network that the quantized one approximates.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from mlc.backends.onnx import to_proto
from mlc.frontends.onnx import load
from mlc.ir.core import Module

ONE, ZERO = "dequantized_one", "dequantized_zero"


def dequantized(module: Module) -> Module:
    """The same network with nothing that rounds. Errors: KeyError when integer weights are computed."""
    proto = to_proto(module)
    graph = proto.graph
    known = {t.name: t for t in graph.initializer}
    graph.initializer.extend([numpy_helper.from_array(np.float32(x), n) for x, n in ((1, ONE), (0, ZERO))])
    instead: dict[str, str] = {}
    nodes = [kept for node in graph.node for kept in _without_rounding(node, graph, known, instead)]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return load(proto)


def _without_rounding(
    node: NodeProto, graph: GraphProto, known: dict[str, TensorProto], instead: dict[str, str]
) -> list[NodeProto]:
    """What stays of a node; `instead` collects the names that stand in for results that are gone."""
    codes = [name in instead for name in node.input]  # made by a quantizer that is gone
    node.input[:] = [instead.get(name, name) for name in node.input]
    if node.op_type == "DynamicQuantizeLinear":
        instead.update(zip(node.output, (node.input[0], ONE, ZERO)))
        return []
    if node.op_type == "QuantizeLinear" or (node.op_type == "DequantizeLinear" and codes[0]):
        instead[node.output[0]] = node.input[0]
        return []
    if node.op_type != "MatMulInteger":
        return [node]
    weight, zero = known[node.input[1]], known[node.input[3]] if len(node.input) > 3 else None
    numbers = numpy_helper.to_array(weight).astype(np.float32)
    if zero is not None:
        numbers = numbers - numpy_helper.to_array(zero).astype(np.float32)
    name = f"{node.output[0]}_numbers"
    graph.initializer.append(numpy_helper.from_array(numbers, name))
    return [helper.make_node("MatMul", [node.input[0], name], list(node.output), name=node.name)]
