"""Modules as ONNX graphs: names, placement of constants, interface. Large constants are stubs, filled by the writer.

Constants become initializers of the innermost graph that encloses all their uses. The interface keeps its names:
an Identity is inserted where one value has two output names, or an output is an input or a constant under another
name, or a body hands out a value of a graph around it. `value.declared` is written, never inferred types:
runtimes choose fusions by value_info.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from ..ir import dims
from ..ir.constants import Constant
from ..ir.core import Graph, Module, Op, Value
from ..ir.dims import Dim
from ..ir.dtypes import DType
from ..ir.errors import Code, error
from ..ir.names import Names
from ..ir.onnx_attrs import attribute_proto, tensor_proto, type_proto
from ..ir.types import Type

#: `external_data` location of a stub: the writer puts the data there.
STUB = "\0stub"
_INLINE_BYTES = 1024  # smaller constants are written at once, so that the version converter can read them

Stubs = dict[str, Constant]


def light_proto(module: Module) -> tuple[ModelProto, Stubs]:
    """The model with stubs for its large constants, and the constants by the stubs' names."""
    writer = _Writer(module)
    meta = module.meta
    proto = ModelProto()
    about = {
        "producer_name": meta.producer_name,
        "producer_version": meta.producer_version,
        "domain": meta.domain,
        "model_version": meta.model_version,
        "doc_string": meta.doc,
    }
    for field, known in about.items():
        if known:
            setattr(proto, field, known)
    proto.opset_import.add(version=module.opset)
    for domain in sorted({op.domain for op in module.walk()} - {""}):
        proto.opset_import.append(onnx.helper.make_opsetid(domain, module.opsets.get(domain, 1)))
    writer.graph(module.graph, proto.graph)
    onnx.helper.set_model_props(proto, meta.properties)
    for key, text in meta.graph_properties.items():
        proto.graph.metadata_props.add(key=key, value=text)
    return proto, writer.stubs


class _Writer:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.stubs: Stubs = {}
        self._homes = _homes(module)
        self._taken = Names(())
        self._node_names = Names(())
        self._names = self._name_values()

    def _name_values(self) -> dict[Value, str]:
        """A name for every value, unique over all graphs; the interface comes first."""
        main = self.module.graph
        names = {value: value.name for value in main.inputs}
        self._taken.taken.update(names.values(), main.output_names)
        for value, output in zip(main.outputs, main.output_names):
            own_result = value.op is not None and value.home is main
            if value not in names and (own_result or (value.constant is not None and value.name == output)):
                names[value] = output
        for value in self.module.values():
            if value not in names:
                names[value] = self._reserve(value.name) if value.name or value.uses else ""
        return names

    def _reserve(self, wanted: str) -> str:
        return self._taken.reserve(wanted or "value")

    def graph(self, graph: Graph, proto: GraphProto) -> None:
        main = graph is self.module.graph
        proto.name = graph.name or "graph"
        if graph.doc:
            proto.doc_string = graph.doc
        for value in graph.inputs:
            # Always with a type: bodies that a pass built have no declared one, and the runtime wants it.
            proto.input.append(self._info(value, self._names[value], always=True))
            if main and value.name in self.module.defaults:
                proto.initializer.append(self._initializer(self._names[value], self.module.defaults[value.name]))
        for value in self._homes.get(graph, ()):
            assert value.constant is not None
            proto.initializer.append(self._initializer(self._names[value], value.constant))
        for op in graph.ops:
            proto.node.append(self._node(op))
        handed: set[str] = set()
        for value, label in zip(graph.outputs, graph.output_names):
            name = self._output(graph, proto, value, label, handed)
            handed.add(name)
            info = self._info(value, name, always=main)
            if label in graph.output_docs:
                info.doc_string = graph.output_docs[label]
            proto.output.append(info)
        self._value_info(graph, proto)

    def _output(self, graph: Graph, proto: GraphProto, value: Value, label: str, handed: set[str]) -> str:
        """The name under which a graph hands out a value; an Identity makes it one of the graph's own.

        In bodies ONNX Runtime refuses values of the graphs around them and computes garbage for one listed twice.
        """
        known = self._names[value]
        if graph is self.module.graph:
            if known == label:
                return label
            name = label
        elif known not in handed and (value.home is graph or value in self._homes.get(graph, ())):
            return known
        else:
            name = self._reserve(f"{known}_out")
        label = self._node_name(f"{name}__identity")
        proto.node.append(NodeProto(op_type="Identity", input=[known], output=[name], name=label))
        return name

    def _value_info(self, graph: Graph, proto: GraphProto) -> None:
        interface = {v.name for v in (*proto.input, *proto.output)}
        results = (value for op in graph.ops for value in op.results)
        for value in (*self._homes.get(graph, ()), *results):
            name = self._names[value]
            if value.declared is not None and name and name not in interface:
                proto.value_info.append(self._info(value, name))

    def _info(self, value: Value, name: str, *, always: bool = False) -> ValueInfoProto:
        info = ValueInfoProto(name=name)
        if value.doc:
            info.doc_string = value.doc
        if value.declared is not None or always:
            info.type.CopyFrom(written_type(value.declared or value.type))
        return info

    def _initializer(self, name: str, constant: Constant) -> TensorProto:
        if constant.dtype is DType.STR or constant.nbytes <= _INLINE_BYTES:
            return tensor_proto(constant, name)
        self.stubs[name] = constant
        proto = TensorProto(
            name=name, data_type=constant.dtype.onnx, dims=constant.shape, data_location=TensorProto.EXTERNAL
        )
        proto.external_data.add(key="location", value=STUB)
        return proto

    def _node(self, op: Op) -> NodeProto:
        if op.domain == "mlc":
            raise error(
                Code.CANNOT_HONOUR,
                f"{op.kind} exists inside mlc only and cannot be written to a file",
                where=str(op.loc),
                help="legalize the module for a target first",
            )
        # An empty text that is set explicitly takes bytes in the file.
        node = NodeProto(op_type=op.op_type)
        for field, text in (("domain", op.domain), ("overload", op.overload), ("doc_string", op.doc)):
            if text:
                setattr(node, field, text)
        if op.name:
            node.name = self._node_name(op.name)
        node.input.extend("" if v is None else self._names[v] for v in op.operands)
        node.output.extend(self._names[v] for v in op.results)
        node.attribute.extend(attribute_proto(name, value) for name, value in op.attrs.items())
        for name, region in op.regions.items():
            attribute = node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
            self.graph(region, attribute.g)
        for key, text in op.meta.items():
            node.metadata_props.add(key=key, value=text)
        return node

    def _node_name(self, wanted: str) -> str:
        return self._node_names.reserve(wanted)


def _homes(module: Module) -> Mapping[Graph, list[Value]]:
    """Which graph holds which constants."""
    found: dict[Graph, list[Value]] = {}
    for value in module.constants.values():
        found.setdefault(_home(value, module.graph), []).append(value)
    return found


def _home(value: Value, main: Graph) -> Graph:
    home: Graph | None = None
    for use in value.uses:
        reader = use.op.parent
        home = reader if home is None else home
        while home is not None and not home.encloses(reader):
            home = home.owner.parent if home.owner is not None else None
    return main if home is None or next(home.ops, None) is None else home  # a body without ops borrows


def written_type(type: Type) -> TypeProto:
    """A type as files hold it: named sizes keep their names, unknown and computed ones are left open."""
    return type_proto(type, _written_dim)


def _written_dim(dim: Dim) -> int | str:
    if isinstance(dim, int):
        return dim
    return dim.name if isinstance(dim, dims.Sym) and not dims.is_fresh(dim) else ""
