"""Inference of If, Loop and Scan: the bodies are inferred with what flows into them, the results follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeGuard

from . import dims as _dims
from . import types
from .core import Graph, Module, Op, Value
from .dims import Dim, Sym
from .ops.access import attr_int, attr_ints, axis_in, broken, ints
from .ops.opdef import Inferred
from .types import OptionalType, SequenceType, TensorType, Type, UnrankedTensor


def infer_regions(op: Op, module: Module) -> list[Inferred]:
    """Types of the results of a control-flow op. The values inside its bodies are typed on the way."""
    return RULES[op.kind](op, module)


def _body(op: Op, name: str) -> Graph:
    if name not in op.regions:
        raise broken(op, f"the body {name!r} is missing")
    return op.regions[name]


def _run(graph: Graph, module: Module) -> list[Inferred]:
    from .infer import infer_graph

    infer_graph(graph, module)
    return [Inferred(v.type, v.dims) for v in graph.outputs]


def _if(op: Op, module: Module) -> list[Inferred]:
    then = _run(_body(op, "then_branch"), module)
    other = _run(_body(op, "else_branch"), module)
    if len(then) != len(other) or len(then) != len(op.results):
        raise broken(op, f"the branches yield {len(then)} and {len(other)} values for {len(op.results)} results")
    condition = ints(op.operand(0))
    if condition is not None and len(condition) == 1:
        return then if condition[0] else other
    return [_joined(op, a, b) for a, b in zip(then, other)]


def _joined(op: Op, a: Inferred, b: Inferred) -> Inferred:
    both = types.join(a.type, b.type)
    if both is None:
        raise broken(op, f"the branches yield {a.type} and {b.type}")
    return Inferred(both, a.dims if a.dims == b.dims else None)


class _Carried:
    """The type of a value carried from one iteration to the next: covers what comes in and what the body yields."""

    def __init__(self, formal: Value, actual: Value) -> None:
        from .infer import refine

        self.formal = formal
        self.before = formal.type
        self.type: Type = refine(formal, actual.type)
        self.widened: set[Sym] = set()
        self.dims = actual.dims

    def bind(self) -> None:
        self.formal.type, self.formal.dims = self.type, self.dims

    def absorb(self, op: Op, found: Inferred) -> bool:
        """Widen by what the body yields; whether anything changed."""
        before = (self.type, self.dims)
        self.type = self._widen(op, self.type, found.type)
        if self.dims != found.dims:
            self.dims = None
        return before != (self.type, self.dims)

    def _widen(self, op: Op, a: Type, b: Type) -> Type:
        if isinstance(a, TensorType) and isinstance(b, TensorType) and a.dtype is b.dtype and a.rank == b.rank:
            return TensorType(a.dtype, tuple(self._widen_dim(i, *pair) for i, pair in enumerate(zip(a.shape, b.shape))))
        joined = OptionalType(a.element) if _is_optional_of(a, b) else types.join(a, b)
        if joined is None:
            raise broken(op, f"carried value {self.formal.name!r} is {a}, but the body yields {b}")
        return joined

    def _widen_dim(self, axis: int, a: Dim, b: Dim) -> Dim:
        if a == b or a in self.widened:
            return a
        unknown = self._earlier_symbol(axis, a) or _dims.fresh()
        self.widened.add(unknown)
        return unknown

    def _earlier_symbol(self, axis: int, a: Dim) -> Sym | None:
        """The unknown this axis was given by an earlier inference, so that inferring twice changes nothing."""
        if not isinstance(self.before, TensorType) or axis >= self.before.rank:
            return None
        dim = self.before.shape[axis]
        usable = isinstance(dim, Sym) and _dims.is_fresh(dim) and dim not in _dims.symbols(a)
        return dim if usable and isinstance(dim, Sym) and dim not in self.widened else None


def _is_optional_of(a: Type, b: Type) -> TypeGuard[OptionalType]:
    return isinstance(a, OptionalType) and types.unify(a.element, b) is not None


def _settle_carried(op: Op, body: Graph, carried: list[_Carried], skip: int, module: Module) -> list[Inferred]:
    """Infer the body until the carried types cover what it yields. Every round only widens, so it ends."""
    while True:
        for state in carried:
            state.bind()
        found = _run(body, module)
        changes = [state.absorb(op, f) for state, f in zip(carried, found[skip:])]
        if not any(changes):
            return found


def _loop(op: Op, module: Module) -> list[Inferred]:
    body = _body(op, "body")
    actual = [v for v in op.operands[2:] if v is not None]
    if len(body.inputs) != len(actual) + 2 or len(body.outputs) != len(op.results) + 1:
        raise broken(op, f"the body takes {len(body.inputs)} and yields {len(body.outputs)} values")
    trip, condition = op.operand(0), op.operand(1)
    carried = [_Carried(f, a) for f, a in zip(body.inputs[2:], actual)]
    found = _settle_carried(op, body, carried, 1, module)
    endless = (condition is None or ints(condition) == (1,)) and found[0].dims == (1,)
    bound = trip.dims if trip is not None else None
    rounds = bound[0] if endless and bound is not None and len(bound) == 1 else _dims.fresh()
    scanned = [Inferred(_stacked(f.type, rounds, 0)) for f in found[1 + len(carried) :]]
    finals = [
        Inferred(f.type if _is_optional_of(c.type, f.type) else c.type, c.dims) for c, f in zip(carried, found[1:])
    ]
    return finals + scanned


def _stacked(type: Type, count: Dim, axis: int) -> Type:
    if isinstance(type, TensorType):
        place = axis % (type.rank + 1)
        return TensorType(type.dtype, (*type.shape[:place], count, *type.shape[place:]))
    return type


def _scan(op: Op, module: Module) -> list[Inferred]:
    body = _body(op, "body")
    operands = [v for v in op.operands if v is not None]
    states = len(operands) - attr_int(op, "num_scan_inputs")
    if states < 0 or len(body.inputs) != len(operands) or len(body.outputs) != len(op.results):
        raise broken(op, f"the body takes {len(body.inputs)} and yields {len(body.outputs)} values")
    axes = attr_ints(op, "scan_input_axes") or (0,) * (len(operands) - states)
    length: Dim = _dims.fresh()
    for formal, value, axis in zip(body.inputs[states:], operands[states:], axes):
        if isinstance(value.type, TensorType):
            place = axis_in(op, axis, value.type.rank)
            length = _dims.unify(length, value.type.shape[place]) or length
            formal.type = TensorType(value.type.dtype, value.type.shape[:place] + value.type.shape[place + 1 :])
        elif isinstance(value.type, UnrankedTensor):
            formal.type = types.unify(value.type, formal.type) or value.type
    carried = [_Carried(f, v) for f, v in zip(body.inputs, operands[:states])]
    found = _settle_carried(op, body, carried, 0, module)
    out_axes = attr_ints(op, "scan_output_axes") or (0,) * (len(found) - states)
    scanned = [Inferred(_stacked(f.type, length, axis)) for f, axis in zip(found[states:], out_axes)]
    return [Inferred(c.type, c.dims) for c in carried] + scanned


def _sequence_map(op: Op, module: Module) -> list[Inferred]:
    """The body sees an item of every sequence, and every tensor as it is."""
    body = _body(op, "body")
    for formal, value in zip(body.inputs, op.operands):
        if value is not None:
            formal.type = value.type.element if isinstance(value.type, SequenceType) else value.type
    return [Inferred(SequenceType(_any_item(f.type))) for f in _run(body, module)]


def _any_item(type: Type) -> Type:
    """Items of a sequence differ in shape."""
    if isinstance(type, TensorType):
        return TensorType(type.dtype, tuple(d if isinstance(d, int) else _dims.fresh() for d in type.shape))
    return type


RULES: Mapping[str, Callable[[Op, Module], list[Inferred]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _sequence_map,
}
