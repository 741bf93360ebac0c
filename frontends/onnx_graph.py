"""Builds the IR from a checked and sorted GraphProto: names become values, attributes plain data, bodies regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, TypeProto

from ..ir import dims
from ..ir.constants import Constant
from ..ir.core import Attr, Constants, Floats, Graph, Ints, Loc, Module, Op, Strings, Types, Value
from ..ir.dtypes import DType
from ..ir.errors import Code, error
from ..ir.names import Names
from ..ir.onnx_attrs import type_of_proto
from ..ir.types import TensorType, Type, UnrankedTensor
from .onnx_structure import node_label
from .onnx_tensors import TensorReader, broken
from .onnx_upgrade import declared_types

#: The type of a value nobody has typed yet; inference replaces it.
_UNTYPED = UnrankedTensor(DType.F32)
_HUGE = 1 << 62  # elements


@dataclass
class _Frame:
    """One graph under construction: what its names mean and what the file says of them."""

    graph: Graph
    scope: dict[str, Value]
    types: Mapping[str, TypeProto]
    docs: Mapping[str, str]
    main: bool
    where: str

    def declared(self, name: str) -> Type | None:
        proto = self.types.get(name)
        return None if proto is None else read_type(proto, f"value {name!r}")


def _docs(proto: GraphProto) -> dict[str, str]:
    return {v.name: v.doc_string for v in (*proto.value_info, *proto.output, *proto.input) if v.doc_string}


class GraphBuilder:
    """Builds the graphs of one module. Value and node names are made unique over all graphs of it."""

    def __init__(self, module: Module, reader: TensorReader, *, overridable: bool) -> None:
        self.module, self.reader, self.overridable = module, reader, overridable
        self._names = Names(())
        self._node_names = Names(())

    def main(self, proto: GraphProto) -> Graph:
        """The main graph. Its names are taken first, so that bodies give way."""
        self._names.taken.update(name for node in proto.node for name in node.output)
        self._names.taken.update(v.name for v in (*proto.input, *proto.output))
        self._names.taken.update(t.name for t in proto.initializer)
        self._names.taken.update(t.values.name for t in proto.sparse_initializer)
        return self._graph(proto, {}, None, "the main graph")

    def _graph(self, proto: GraphProto, outer: Mapping[str, Value], owner: NodeProto | None, where: str) -> Graph:
        frame = _Frame(Graph(proto.name), dict(outer), declared_types(proto), _docs(proto), owner is None, where)
        graph = frame.graph
        graph.doc = proto.doc_string
        constants = self._initializers(proto)
        for entry in proto.input:
            if entry.name not in constants or (frame.main and self.overridable):
                self._input(entry.name, frame, constants)
        for name, constant in constants.items():
            self._constant(name, constant, frame)
        for node in proto.node:
            self._node(node, frame)
        for entry in proto.output:
            graph._add_output(frame.scope[entry.name], entry.name)
            if entry.doc_string:
                graph.output_docs[entry.name] = entry.doc_string
        return graph

    def _initializers(self, proto: GraphProto) -> dict[str, Constant]:
        found = {t.name: self.reader.constant(t, f"initializer {t.name!r}") for t in proto.initializer}
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            found[name] = self.reader.sparse(sparse, f"sparse initializer {name!r}")
        return found

    def _input(self, name: str, frame: _Frame, constants: dict[str, Constant]) -> None:
        """An argument; one that is an initializer too takes it as its default."""
        value = self._value(name, frame)
        if name in constants:
            default = constants.pop(name)
            self.module.defaults[name] = default
            if value.declared is None:
                value.type = default.type
        elif frame.main and value.declared is None:
            raise broken(f"input {name!r} has no type", frame.where)
        frame.graph._add_input(value)
        frame.scope[name] = value

    def _constant(self, name: str, constant: Constant, frame: _Frame) -> None:
        value = self.module._add_constant(name if frame.main else self._names.reserve(name), constant)
        constant.origin = name
        value.declared, value.doc = frame.declared(name), frame.docs.get(name, "")
        frame.scope[name] = value

    def _value(self, name: str, frame: _Frame) -> Value:
        declared = frame.declared(name)
        known = declared and _without_marks(declared)
        value = Value(known or _UNTYPED, name if frame.main or not name else self._names.reserve(name))
        value.declared, value.doc = declared, frame.docs.get(name, "")
        return value

    def _node(self, node: NodeProto, frame: _Frame) -> None:
        label = node_label(node, frame.where)
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain == "" and node.op_type == "Constant":
            self._constant(node.output[0], self._constant_node(node, label), frame)
            return
        node_name = self._node_names.reserve(node.name) if node.name else ""  # before the bodies take theirs
        scope = frame.scope
        bodies = [a for a in node.attribute if _is_graph(a)]
        regions = {a.name: self._graph(a.g, scope, node, f"{a.name} of {label}") for a in bodies}
        results = [self._value(name, frame) for name in node.output]
        while results and not results[-1].name:
            results.pop()
        op = Op(
            f"{domain}::{node.op_type}" if domain else node.op_type,
            [scope[n] if n else None for n in node.input],
            {a.name: self._attribute(a, label) for a in node.attribute if not _is_graph(a)},
            results,
            regions=regions,
            name=node_name,
            loc=Loc(node.name or next((n for n in node.output if n), node.op_type)),
        )
        op.doc, op.overload = node.doc_string, node.overload
        op.meta = {e.key: e.value for e in node.metadata_props}
        frame.graph._insert(op)
        scope.update((name, result) for name, result in zip(node.output, results) if name)

    def _constant_node(self, node: NodeProto, label: str) -> Constant:
        """The tensor of a Constant node, whichever of its attributes holds it."""
        if len(node.attribute) != 1 or node.attribute[0].name not in _CONSTANT_FORMS:
            raise broken("a Constant needs exactly one of its value attributes", label)
        (attribute,) = node.attribute
        if attribute.name == "sparse_value":
            return self.reader.sparse(attribute.sparse_tensor, label)
        value = self._attribute(attribute, label)
        if attribute.name == "value":
            if not isinstance(value, Constant):
                raise broken("the attribute 'value' of a Constant holds no tensor", label)
            return value
        return Constant.of(value, _CONSTANT_FORMS[attribute.name])

    def _attribute(self, attribute: AttributeProto, label: str) -> Attr:
        where = f"attribute {attribute.name!r} of {label}"
        if attribute.ref_attr_name:
            raise broken("an attribute refers to an attribute of a function, but is in no function", where)
        read = _READERS.get(attribute.type or _guess_type(attribute))
        if read is None:
            raise error(
                Code.UNSUPPORTED_MODEL,
                "an attribute of a kind that is not supported (sparse tensors and lists of graphs are not)",
                where=where,
                help="export the model without it",
            )
        return read(attribute, self.reader, where)


def read_type(proto: TypeProto, where: str) -> Type | None:
    """A declared type; None where the file says nothing. Sizes below zero mean unknown."""
    kind = _innermost(proto)
    if kind in ("map_type", "sparse_tensor_type", "opaque_type"):
        raise error(
            Code.UNSUPPORTED_MODEL,
            f"the value is a {kind.removesuffix('_type').replace('_', ' ')}",
            where=where,
            help="cut the model before this value (a ZipMap at the end, for example)",
        )
    found = type_of_proto(proto, lambda name: dims.Sym(name) if name else dims.fresh())
    if isinstance(found, TensorType) and math.prod(d for d in found.shape if isinstance(d, int) and d) >= _HUGE:
        raise broken(f"the declared shape {found} is beyond what memory can hold", where)
    return found


def _innermost(proto: TypeProto) -> str | None:
    """What a value consists of, if it is a sequence or an optional one too."""
    kind: str | None = proto.WhichOneof("value")
    if kind == "sequence_type":
        return _innermost(proto.sequence_type.elem_type)
    return _innermost(proto.optional_type.elem_type) if kind == "optional_type" else kind


def _without_marks(declared: Type) -> Type:
    """Sizes called `?` are no names: some exporters write it for every unknown size, and those are not equal."""
    if not isinstance(declared, TensorType):
        return declared
    return TensorType(declared.dtype, tuple(dims.fresh() if _is_mark(d) else d for d in declared.shape))


def _is_mark(dim: dims.Dim) -> bool:
    return isinstance(dim, dims.Sym) and not dim.name.strip("?")


def _is_graph(attribute: AttributeProto) -> bool:
    return bool(attribute.type == AttributeProto.GRAPH)


def _guess_type(attribute: AttributeProto) -> int:
    """The kind of an attribute of an old file that does not state it."""
    for field, kind in (("f", 1), ("i", 2), ("s", 3), ("t", 4)):
        if attribute.HasField(field):
            return kind
    return next((kind for field, kind in (("floats", 6), ("ints", 7), ("strings", 8)) if getattr(attribute, field)), 0)


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _read_tensor(proto: TensorProto, reader: TensorReader, where: str) -> Constant:
    return reader.constant(proto, where)


def _read_type(proto: TypeProto, where: str) -> Type:
    found = read_type(proto, where)
    if found is None:
        raise broken("an attribute holds an empty type", where)
    return found


_CONSTANT_FORMS: Mapping[str, DType | None] = {
    "value": None,
    "sparse_value": None,
    "value_float": DType.F32,
    "value_floats": DType.F32,
    "value_int": DType.I64,
    "value_ints": DType.I64,
    "value_string": DType.STR,
    "value_strings": DType.STR,
}

_READERS: Mapping[int, Callable[[Any, TensorReader, str], Attr]] = {
    AttributeProto.FLOAT: lambda a, r, w: float(a.f),
    AttributeProto.INT: lambda a, r, w: int(a.i),
    AttributeProto.STRING: lambda a, r, w: _text(a.s),
    AttributeProto.TENSOR: lambda a, r, w: _read_tensor(a.t, r, w),
    AttributeProto.FLOATS: lambda a, r, w: Floats(a.floats),
    AttributeProto.INTS: lambda a, r, w: Ints(a.ints),
    AttributeProto.STRINGS: lambda a, r, w: Strings(map(_text, a.strings)),
    AttributeProto.TENSORS: lambda a, r, w: Constants(_read_tensor(t, r, w) for t in a.tensors),
    AttributeProto.TYPE_PROTO: lambda a, r, w: _read_type(a.tp, w),
    AttributeProto.TYPE_PROTOS: lambda a, r, w: Types(_read_type(t, w) for t in a.type_protos),
}
