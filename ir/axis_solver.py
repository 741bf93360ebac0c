"""The solver that the axis rules of the operator table talk to: types of axes per value, unify, pin, totality.

A rule reads operands with `operand` or `need` and writes results with `out`. What a rule does not mention is pinned:
every axis of an operand slot that was not read, and every axis of a result that was not written.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import axis_types as ax
from .axis_types import AxisType, Pin
from .core import Graph, Module, Op, Value
from .dims import Dim
from .types import Shape, TensorType

Axis = tuple[AxisType, ...]


class Opaque(Exception):
    """A rule cannot say anything about this op: every axis it touches is pinned under the given code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Solver:
    """One run of the analysis over a module."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.types: dict[Value, Axis | None] = {}  # None: not a tensor of known rank
        self.constants: list[Value] = []  # in the order of first use
        self._static: set[Value] = set()  # computed from constants alone
        self._read: set[int] = set()

    # -- what rules use ----------------------------------------------------------------------------------------

    def operand(self, op: Op, slot: int) -> Axis | None:
        """The axis types of an operand; None if it is left out or its rank is unknown."""
        self._read.add(slot)
        value = op.operand(slot)
        return None if value is None else self.of(value)

    def need(self, op: Op, slot: int) -> Axis:
        """The axis types of an operand that the rule cannot do without."""
        found = self.operand(op, slot)
        if found is None:
            self._read.discard(slot)
            raise Opaque("unknown-rank")
        return found

    def is_static(self, value: Value | None) -> bool:
        """Whether a value does not depend on the inputs of the model."""
        return value is not None and (value.constant is not None or value in self._static)

    def shape(self, value: Value) -> Shape:
        if not isinstance(value.type, TensorType):
            raise Opaque("unknown-rank")
        return value.type.shape

    def out(self, op: Op, types: Sequence[AxisType], index: int = 0) -> None:
        """The axis types of a result. Where a size is not what inference says, the axis is pinned."""
        if index >= len(op.results):
            return
        value = op.results[index]
        if not isinstance(value.type, TensorType) or value.type.rank != len(types):
            for t in types:
                self.pin(op, t, "unknown-rank")
            self._assign_pinned(value, self.why(op, "unknown-rank"))
            return
        self.types[value] = tuple(self._fit(op, t, dim) for t, dim in zip(types, value.type.shape))

    def _fit(self, op: Op, t: AxisType, dim: Dim) -> AxisType:
        t = ax.resolve(t)
        if ax.size(t) == dim:
            return t
        if not ax.is_pinned(t):
            self.pin(op, t, "size-unknown")
        return ax.atom(dim, t.pin if isinstance(t, ax.Atom) and t.pin else self.why(op, "size-unknown"))

    def why(self, op: Op, code: str) -> Pin:
        return Pin(code, op.loc.origin or op.name, op.kind)

    def pin(self, op: Op, t: AxisType, code: str) -> None:
        ax.pin(t, self.why(op, code))

    def mark(self, op: Op, t: AxisType, code: str) -> None:
        ax.mark(t, self.why(op, code))

    def unify(self, op: Op, a: AxisType, b: AxisType) -> None:
        ax.unify(a, b, self.why(op, ax.REFINE))

    def pinned(self, op: Op, dim: Dim, code: str) -> AxisType:
        """A new axis whose order matters."""
        return ax.atom(dim, self.why(op, code))

    def split(self, op: Op, t: AxisType, sizes: Sequence[Dim]) -> list[AxisType]:
        """Consecutive segments of an axis; pinned where its structure does not allow the cuts."""
        cut = ax.split(t, sizes)
        if cut is None:
            self.pin(op, t, ax.REFINE)
            return [self.pinned(op, n, ax.REFINE) for n in sizes]
        return cut

    def regroup(self, op: Op, factors: Sequence[AxisType], sizes: Sequence[Dim]) -> list[AxisType]:
        """Row-major factors as axes of other sizes; pinned where there is no common mixed radix."""
        found = ax.regroup(factors, sizes)
        if found is None:
            for t in factors:
                self.pin(op, t, ax.REFINE)
            return [self.pinned(op, n, ax.REFINE) for n in sizes]
        return found

    # -- the run -----------------------------------------------------------------------------------------------

    def of(self, value: Value) -> Axis | None:
        """The axis types of a value in normal form."""
        if value not in self.types:
            self._first_use(value)
        found = self.types[value]
        if found is None:
            return None
        now = tuple(ax.resolve(t) for t in found)
        if now != found:
            self.types[value] = now
        return now

    def _first_use(self, value: Value) -> None:
        if value.constant is not None:
            self.constants.append(value)
            self.types[value] = tuple(ax.atom(n) for n in value.constant.shape)
        else:
            self._assign_pinned(value, Pin("interface-input", value.name))

    def _assign_pinned(self, value: Value, why: Pin) -> None:
        ranked = isinstance(value.type, TensorType)
        self.types[value] = tuple(ax.atom(d, why) for d in value.type.shape) if ranked else None  # type: ignore[union-attr]

    def run(self, graph: Graph) -> None:
        """Apply the rule of every op in program order."""
        for op in graph.ops:
            self._visit(op)

    def _visit(self, op: Op) -> None:
        from .ops.axes_rules import rule_of

        self._read = set()
        if op.operands and not op.regions and all(v is None or self.is_static(v) for v in op.operands):
            self._static.update(op.results)
        rule = rule_of(op)
        if rule is None:
            self._opaque(op, "unknown-operator")
            return
        try:
            rule(op, self)
        except Opaque as reason:
            self._opaque(op, reason.code)
            return
        for slot, value in enumerate(op.operands):
            if value is not None and slot not in self._read:
                self.pin_value(value, self.why(op, "order-matters"))
        for result in op.results:
            if result not in self.types:
                self._assign_pinned(result, self.why(op, "generated-order"))

    def region(self, op: Op, graph: Graph) -> list[Axis | None]:
        """Analyse a body whose arguments have their types already; the types of its outputs."""
        saved = self._read
        self.run(graph)
        self._read = saved
        return [self.of(value) for value in graph.outputs]

    def give(self, value: Value, types: Sequence[AxisType] | None, why: Pin) -> None:
        """Let an argument of a body have the types of what flows into it; pin both where they do not fit."""
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        if types is not None and shape is not None and tuple(ax.size(t) for t in types) == shape:
            self.types[value] = tuple(types)
            return
        for t in types or ():
            ax.pin(t, why)
        self._assign_pinned(value, why)

    def join(self, op: Op, a: Axis | None, b: Axis | None) -> Axis | None:
        """One description of a value that is either of two; what does not match is pinned."""
        if a is None or b is None or len(a) != len(b):
            for t in (*(a or ()), *(b or ())):
                self.pin(op, t, "control-flow")
            return None
        for x, y in zip(a, b):
            self.unify(op, x, y)
        return tuple(ax.resolve(x) for x in a)

    def pin_value(self, value: Value, why: Pin) -> None:
        for t in self.of(value) or ():
            ax.pin(t, why)

    def _opaque(self, op: Op, code: str) -> None:
        why = self.why(op, code)
        for value in op.operands:
            if value is not None:
                self.pin_value(value, why)
        for value in op.results:
            self._assign_pinned(value, why)
        for region in op.regions.values():
            self._pin_region(region, why)

    def _pin_region(self, graph: Graph, why: Pin) -> None:
        """Pin everything a body captures, defines or yields."""
        for value in graph.inputs:
            self._assign_pinned(value, why)
        for op in graph.walk():
            for value in op.results:
                self._assign_pinned(value, why)
        for op in graph.walk():
            for operand in op.operands:
                if operand is not None:
                    self.pin_value(operand, why)
        for body in graph.graphs():
            for value in (*body.inputs, *body.outputs):
                self.pin_value(value, why)
