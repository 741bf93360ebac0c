"""A float32 network in double precision, so that a law can be held to 1e-9 and rounding explains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from mlc.backends.onnx import to_proto
from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.errors import MlcError
from mlc.ir.evaluate import evaluate

Array = np.ndarray[Any, Any]

TYPED = {"Cast": "to", "GroupNormalization": "stash_type"}  # attributes that name a type
SINGLE = {"Resize": (1, 2)}  # operands that are float32 whatever the data is


def widened(module: Module) -> Module:
    """The same network with every float32 as a double."""
    proto: ModelProto = to_proto(module)
    for graph in _graphs(proto.graph):
        fixed = {n.input[i] for n in graph.node for i in SINGLE.get(n.op_type, ()) if i < len(n.input)}
        for tensor in graph.initializer:
            if tensor.name not in fixed:
                _widen_tensor(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            _widen_value(value)
        for node in graph.node:
            _widen_node(node)
    return load(proto)


def run_wide(module: Module, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs in double precision: of ONNX Runtime where it has the kernels, else of the reference."""
    wide = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in feeds.items()}
    try:
        return [np.asarray(y) for y in Session(module, threads=1, optimize=False).run(wide).values()]
    except MlcError as refusal:
        if "NOT_IMPLEMENTED" not in str(refusal) and "does not support double" not in str(refusal):
            raise
        return [np.asarray(y) for y in evaluate(module, wide)]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _widen_value(value: ValueInfoProto) -> None:
    if value.type.tensor_type.elem_type == TensorProto.FLOAT:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def _widen_node(node: NodeProto) -> None:
    typed = TYPED.get(node.op_type)
    if typed == "stash_type" and not any(a.name == typed for a in node.attribute):
        node.attribute.add(name=typed, i=TensorProto.DOUBLE, type=AttributeProto.INT)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
        elif attribute.name == typed and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
