"""Inference of one op by ONNX itself: the default for operators without a rule of their own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, TypeProto
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError, infer_node_outputs

from .constants import Constant
from .core import Module, Op, Value
from .dtypes import BY_SHORT, DType
from .errors import Code, error
from .onnx_attrs import DimCodec, node_proto, schema_of, tensor_proto, type_of_proto, type_proto
from .types import TensorType, Type, UnrankedTensor

_MAX_DATA = 1024  # elements of a constant that inference may want to read (axes, shapes, scales)
_SPELLING = {"float": "f32", "double": "f64", "float16": "f16", "bfloat16": "bf16", "bool": "bool", "string": "str"}


def infer_with_onnx(op: Op, module: Module) -> list[Type | None] | None:
    """The types of an op's results, None for those ONNX says nothing of; None altogether for unknown operators."""
    schema = schema_of(op, module.opset, module.opsets)
    if schema is None or op.regions:
        return None
    codec = DimCodec()
    node = node_proto(op)
    operands = {f"x{i}": v for i, v in enumerate(op.operands) if v is not None}
    found = _run(op, schema, node, operands, codec, module)
    inferred = (type_of_proto(found[n], codec.read) if n in found else None for n in node.output)
    return [t if t is not None else _by_schema(op, schema, index) for index, t in enumerate(inferred)]


def _run(
    op: Op,
    schema: onnx.defs.OpSchema,
    node: onnx.NodeProto,
    operands: dict[str, Value],
    codec: DimCodec,
    module: Module,
) -> dict[str, TypeProto]:
    versions = {"": module.opset, **module.opsets}
    data = {name: proto for name, v in operands.items() if (proto := _data(v)) is not None}
    try:
        found: dict[str, TypeProto] = infer_node_outputs(
            schema,
            node,
            {name: type_proto(v.type, codec.write) for name, v in operands.items()},
            data,
            opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in versions.items()],
        )
    except (InferenceError, ValidationError, ValueError, IndexError) as problem:
        given = ", ".join("none" if v is None else str(v.type) for v in op.operands)
        message = f"{op.kind} does not accept its operands ({given}): {_reason(problem)}"
        raise error(
            Code.BROKEN_MODEL, message, where=str(op.loc), help="correct the node in the source model"
        ) from None
    return found


def _reason(problem: Exception) -> str:
    """ONNX's message without its prefix of error classes and node names."""
    text = str(problem).strip().splitlines()
    return text[-1].rpartition("] ")[2] if text else type(problem).__name__


def _data(value: Value) -> TensorProto | None:
    constant = value.constant
    if constant is not None:
        return tensor_proto(constant) if constant.elements <= _MAX_DATA and constant.dtype is not DType.STR else None
    if value.dims is None or not isinstance(value.type, TensorType) or not value.type.dtype.is_integer:
        return None
    known = [d for d in value.dims if isinstance(d, int)]
    if len(known) != len(value.dims):
        return None
    array = np.array(known, value.type.dtype.numpy).reshape(() if value.type.rank == 0 else (-1,))
    return tensor_proto(Constant.of(array, value.type.dtype))


def _by_schema(op: Op, schema: onnx.defs.OpSchema, index: int) -> Type | None:
    """A tensor of unknown rank whose element type follows from the schema's type constraints."""
    if not schema.outputs:
        return None
    wanted = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
    for slot, value in enumerate(op.operands):
        formal = schema.inputs[min(slot, len(schema.inputs) - 1)]
        if value is not None and formal.type_str == wanted and isinstance(value.type, TensorType | UnrankedTensor):
            return UnrankedTensor(value.type.dtype)
    if wanted.startswith("tensor("):
        return UnrankedTensor(_dtype_of(wanted.removeprefix("tensor(").removesuffix(")")))
    return None


def _dtype_of(spelling: str) -> DType:
    """ONNX's spelling of an element type in a schema: `float`, `uint8`, `bfloat16`, ..."""
    if spelling in _SPELLING:
        return BY_SHORT[_SPELLING[spelling]]
    return BY_SHORT[spelling.replace("uint", "u").replace("int", "i").replace("float", "f").replace("complex", "c")]
