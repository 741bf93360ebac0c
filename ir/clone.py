"""Copying a module: new values and ops, the same (immutable) constant payloads."""

from __future__ import annotations

import copy

from .core import Graph, Module, Op, Value


def clone_module(module: Module) -> Module:
    """An independent module equal to `module`; constants are shared, not copied."""
    mapping: dict[Value, Value] = {}
    twin = Module(Graph(), opset=module.opset, opsets=module.opsets)
    for name, value in module.constants.items():
        assert value.constant is not None
        copied = twin._add_constant(name, value.constant)
        copied.declared, copied.doc, copied.dims = value.declared, value.doc, value.dims
        mapping[value] = copied
    twin.graph = clone_graph(module.graph, mapping)
    twin.defaults = dict(module.defaults)
    twin.meta = copy.deepcopy(module.meta)
    twin.history = list(module.history)
    twin.source = module.source
    return twin


def clone_graph(graph: Graph, mapping: dict[Value, Value]) -> Graph:
    """A copy of a graph. `mapping` takes outer values to their copies (unmapped ones are used as they are)."""
    twin = Graph(graph.name, (_clone_value(v, mapping) for v in graph.inputs))
    twin.doc, twin.output_docs = graph.doc, dict(graph.output_docs)
    for op in graph.ops:
        twin._insert(clone_op(op, mapping))
    for value, name in zip(graph.outputs, graph.output_names):
        twin._add_output(mapping.get(value, value), name)
    return twin


def clone_op(op: Op, mapping: dict[Value, Value]) -> Op:
    """A copy of an op and its regions, not linked into any graph; its results are added to `mapping`."""
    twin = Op(
        op.kind,
        [None if v is None else mapping.get(v, v) for v in op.operands],
        op.attrs,
        [_clone_value(v, mapping) for v in op.results],
        regions={name: clone_graph(region, mapping) for name, region in op.regions.items()},
        name=op.name,
        loc=op.loc,
    )
    twin.doc, twin.meta, twin.overload = op.doc, dict(op.meta), op.overload
    return twin


def _clone_value(value: Value, mapping: dict[Value, Value]) -> Value:
    twin = Value(value.type, value.name)
    twin.doc, twin.declared, twin.dims = value.doc, value.declared, value.dims
    mapping[value] = twin
    return twin
