"""Attributes, constants and types as ONNX protobuf messages: what ONNX's per-node tools take and give.

Dimensions that are not integers travel as `dim_param` strings of our own making, so that what comes back is the
same expression and never one that merely has the same spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import onnx
from onnx import AttributeProto, NodeProto, TensorProto, TypeProto

from . import dims as _dims
from .constants import Constant
from .core import Attr, Constants, Floats, Ints, Op, Strings, Types
from .dims import Dim
from .dtypes import BY_ONNX, DType
from .types import OptionalType, SequenceType, TensorType, Type, UnrankedTensor

DimWriter = Callable[[Dim], int | str]
DimReader = Callable[[str], Dim]


class DimCodec:
    """Writes expressions as unique strings and reads them back; strings it did not write are unknown sizes."""

    def __init__(self) -> None:
        self._by_dim: dict[Dim, str] = {}
        self._by_name: dict[str, Dim] = {}

    def write(self, dim: Dim) -> int | str:
        if isinstance(dim, int):
            return dim
        if dim not in self._by_dim:
            name = f"d{len(self._by_dim)}"
            self._by_dim[dim], self._by_name[name] = name, dim
        return self._by_dim[dim]

    def read(self, name: str) -> Dim:
        return self._by_name.get(name) or _dims.fresh()


def tensor_proto(constant: Constant, name: str = "") -> TensorProto:
    """A self-contained TensorProto of a constant (the elements are copied)."""
    proto = TensorProto(name=name, data_type=constant.dtype.onnx, dims=constant.shape)
    if constant.dtype is DType.STR:
        texts = (x if isinstance(x, bytes) else str(x).encode() for x in constant.array().ravel())
        proto.string_data.extend(texts)
    else:
        proto.raw_data = constant.tobytes()
    return proto


def type_proto(type: Type, dim: DimWriter) -> TypeProto:
    """A type as ONNX writes it; `dim` gives an integer or a dim_param for each dimension."""
    proto = TypeProto()
    if isinstance(type, TensorType):
        proto.tensor_type.elem_type = type.dtype.onnx
        proto.tensor_type.shape.SetInParent()
        for size in type.shape:
            written = dim(size)
            entry = proto.tensor_type.shape.dim.add()
            if isinstance(written, int):
                entry.dim_value = written
            elif written:
                entry.dim_param = written
    elif isinstance(type, UnrankedTensor):
        proto.tensor_type.elem_type = type.dtype.onnx
    elif isinstance(type, SequenceType):
        proto.sequence_type.elem_type.CopyFrom(type_proto(type.element, dim))
    else:
        proto.optional_type.elem_type.CopyFrom(type_proto(type.element, dim))
    return proto


def type_of_proto(proto: TypeProto, dim: DimReader) -> Type | None:
    """The type an ONNX message describes; None if it says nothing, or is a map or a sparse tensor."""
    field = proto.WhichOneof("value")
    if field == "tensor_type":
        dtype = BY_ONNX.get(proto.tensor_type.elem_type)
        if dtype is None:
            return None
        if not proto.tensor_type.HasField("shape"):
            return UnrankedTensor(dtype)
        return TensorType(dtype, tuple(_read_dim(d, dim) for d in proto.tensor_type.shape.dim))
    if field not in ("sequence_type", "optional_type"):
        return None
    element = type_of_proto(getattr(proto, field).elem_type, dim)
    if element is None:
        return None
    return SequenceType(element) if field == "sequence_type" else OptionalType(element)


def _read_dim(proto: Any, dim: DimReader) -> Dim:
    if proto.HasField("dim_value") and proto.dim_value >= 0:
        return int(proto.dim_value)
    return dim(proto.dim_param)


def attribute_proto(name: str, value: Attr) -> AttributeProto:
    """One attribute. The kind is taken from the Python type, so an empty list keeps its kind."""
    proto = AttributeProto(name=name)
    for kind, (code, fill) in _WRITERS.items():
        if isinstance(value, kind):
            proto.type = code
            fill(proto, value)
            return proto
    raise TypeError(f"attribute {name!r} holds a {type(value).__name__}")


def _anonymous(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else dim.name if isinstance(dim, _dims.Sym) and not _dims.is_fresh(dim) else ""


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _set(field: str, convert: Callable[[Any], Any]) -> Callable[[AttributeProto, Any], None]:
    return lambda proto, value: setattr(proto, field, convert(value))


def _extend(field: str, convert: Callable[[Any], Any]) -> Callable[[AttributeProto, Any], None]:
    return lambda proto, value: getattr(proto, field).extend(map(convert, value))


def _copy(field: str, convert: Callable[[Any], Any]) -> Callable[[AttributeProto, Any], None]:
    return lambda proto, value: getattr(proto, field).CopyFrom(convert(value))


def _written_type(type: Type) -> TypeProto:
    return type_proto(type, _anonymous)


_TYPES = (TensorType, UnrankedTensor, SequenceType, OptionalType)
_WRITERS: Mapping[Any, tuple[Any, Callable[[AttributeProto, Any], None]]] = {
    int: (AttributeProto.INT, _set("i", int)),
    float: (AttributeProto.FLOAT, _set("f", float)),
    (str, bytes): (AttributeProto.STRING, _set("s", _bytes)),
    Constant: (AttributeProto.TENSOR, _copy("t", tensor_proto)),
    Ints: (AttributeProto.INTS, _extend("ints", int)),
    Floats: (AttributeProto.FLOATS, _extend("floats", float)),
    Strings: (AttributeProto.STRINGS, _extend("strings", _bytes)),
    Constants: (AttributeProto.TENSORS, _extend("tensors", tensor_proto)),
    Types: (AttributeProto.TYPE_PROTOS, _extend("type_protos", _written_type)),
    _TYPES: (AttributeProto.TYPE_PROTO, _copy("tp", _written_type)),
}


def node_proto(op: Op) -> NodeProto:
    """The op as a node whose inputs are called `x0, x1, ...` (empty where left out) and outputs `y0, y1, ...`."""
    node = NodeProto(op_type=op.op_type, domain=op.domain, name=op.name)
    node.input.extend("" if value is None else f"x{i}" for i, value in enumerate(op.operands))
    node.output.extend(f"y{i}" for i in range(len(op.results)))
    node.attribute.extend(attribute_proto(name, value) for name, value in op.attrs.items())
    return node


def schema_of(op: Op, opset: int, opsets: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    """ONNX's schema of the operator at the module's version, or None if ONNX knows no such operator."""
    return _schema(op.op_type, op.domain, opset if op.domain == "" else opsets.get(op.domain, 1))


def attribute_names(op: Op, opset: int, opsets: Mapping[str, int]) -> frozenset[str] | None:
    """The attributes an operator may have in this opset; None for operators without a schema."""
    return _attribute_names(op.op_type, op.domain, opset if op.domain == "" else opsets.get(op.domain, 1))


@cache
def _schema(op_type: str, domain: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


@cache
def _attribute_names(op_type: str, domain: str, version: int) -> frozenset[str] | None:
    schema = _schema(op_type, domain, version)
    return None if schema is None else frozenset(schema.attributes)
