"""Runs of a module with every value of its main graph exposed: the real shapes and integers, to judge inference by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ValueInfoProto
from onnxruntime import GraphOptimizationLevel as Level
from onnxruntime import InferenceSession, SessionOptions

from mlc.backends.onnx import to_proto
from mlc.ir import dims
from mlc.ir.core import Module, Value
from mlc.ir.types import TensorType, UnrankedTensor


class Exposed:
    """A module's main graph in ONNX Runtime without optimizations, all its values being outputs."""

    def __init__(self, module: Module) -> None:
        proto = to_proto(module)
        produced = {name for node in proto.graph.node for name in node.output if name}
        self.values = [v for op in module.graph.ops for v in op.results if v.name in produced and _is_tensor(v)]
        del proto.graph.output[:]
        for value in self.values:
            info = ValueInfoProto(name=value.name)
            info.type.tensor_type.elem_type = value.type.dtype.onnx
            proto.graph.output.append(info)
        options = SessionOptions()
        options.graph_optimization_level = Level.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._session = InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[Value, np.ndarray]:
        return dict(zip(self.values, self._session.run([v.name for v in self.values], dict(feeds))))


def _is_tensor(value: Value) -> bool:
    return isinstance(value.type, TensorType | UnrankedTensor)


def binding_of(module: Module, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """What the symbols of the inputs' shapes stand for under these feeds."""
    bound: dict[str, int] = {}
    for value in module.graph.inputs:
        if value.name in feeds and isinstance(value.type, TensorType):
            for size, real in zip(value.type.shape, feeds[value.name].shape, strict=True):
                if isinstance(size, dims.Sym):
                    assert bound.setdefault(size.name, real) == real, f"{size} stands for two sizes"
    return bound


def wrong_shapes(found: Mapping[Value, np.ndarray], bound: Mapping[str, int]) -> list[str]:
    """Every value whose inferred type or elements say something else than what came out."""
    return [text for value, array in found.items() if (text := _wrong(value, array, bound))]


def _wrong(value: Value, array: np.ndarray, bound: Mapping[str, int]) -> str:
    assert value.op is not None
    where = f"{value.op.kind} {value!r}"
    if np.dtype(value.type.dtype.numpy) != array.dtype and array.dtype.kind not in "OU":
        return f"{where} is {array.dtype}"
    if isinstance(value.type, UnrankedTensor):
        return ""
    if value.type.rank != array.ndim:
        return f"{where} has shape {array.shape}"
    sizes = [dims.evaluate(d, bound) for d in value.type.shape]
    if any(s not in (None, real) for s, real in zip(sizes, array.shape)):
        return f"{where} has shape {array.shape}, inferred {sizes}"
    if value.dims is not None:
        items = [dims.evaluate(d, bound) for d in value.dims]
        if len(items) != array.size or any(i not in (None, x) for i, x in zip(items, array.reshape(-1))):
            return f"{where} holds {array.reshape(-1)}, inferred {items}"
    return ""
