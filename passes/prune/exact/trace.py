"""The state of following one class through the graph: its flow in every value, and who consumes it linearly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ....ir.axes import Axes, AxisClass
from ....ir.core import Module, Op, Value
from . import flow as fl
from .flow import Flow
from .rows import Array


class NotTraced(Exception):
    """The class passes an op about which nothing exact can be said."""

    def __init__(self, op: Op, why: str) -> None:
        super().__init__(why)
        self.op, self.why = op, why


@dataclass(frozen=True, eq=False)
class Consumer:
    """An op that multiplies the units with a constant and sums them up. `fold`: constants can go into its bias."""

    op: Op
    weight: Value
    axis: int  # of the weight
    data: Flow
    fold: bool


@dataclass
class Trace:
    """The state of one walk."""

    module: Module
    axes: Axes
    target: AxisClass
    flows: dict[Value, Flow] = field(default_factory=dict)
    consumers: list[Consumer] = field(default_factory=list)
    used: set[Value] = field(default_factory=set)  # constants in any other role than a consumer's weight

    def axis_of(self, op: Op, value: Value | None) -> int | None:
        """The axis of a value in which the class occurs; None if in none. Two axes cannot be followed."""
        types = (self.axes.of(value) if value is not None else None) or ()
        found = [a for a, t in enumerate(types) if self.target in self.axes.within(t)]
        if len(found) > 1:
            raise NotTraced(op, "it occurs on two axes of one tensor")
        return found[0] if found else None

    def units(self, value: Value, axis: int) -> Array:
        types = self.axes.of(value)
        assert types is not None
        return self.axes.units(types[axis], self.target)

    def operand(self, op: Op, slot: int) -> Flow | Array | None:
        """A flow where the operand carries the class, else the number it is, else None (any other tensor)."""
        value = op.operand(slot)
        assert value is not None
        axis = self.axis_of(op, value)
        if axis is None:
            one = value.constant is not None and value.constant.elements == 1
            return value.constant.array().reshape(()) if one and value.constant is not None else None
        if value.constant is not None:
            self.used.add(value)
            return self.parameter(value, axis)
        if value not in self.flows:
            raise NotTraced(op, "its weights are computed")
        return self.flows[value]

    def weight_rows(self, value: Value, axis: int) -> Array:
        """A constant unit by unit."""
        assert value.constant is not None
        return fl.unit_rows(value.constant.array(), axis, self.units(value, axis))

    def parameter(self, value: Value, axis: int) -> Flow:
        """A constant with one number, or one row of numbers, for each unit."""
        assert value.constant is not None
        if value.constant.dtype.kind == "str":
            return fl.features(np.eye(self.target.size))
        rows = self.weight_rows(value, axis)
        if rows.shape[1] and (rows == rows[:, :1]).all():
            return fl.constants(rows[:, 0])
        return fl.features(rows)

    def flow(self, op: Op, slot: int = 0) -> Flow:
        found = self.operand(op, slot)
        if not isinstance(found, Flow):
            raise NotTraced(op, "it does not come in through the main operand")
        return found

    def give(self, op: Op, flow: Flow) -> None:
        for value in op.results:
            if self.axis_of(op, value) is not None:
                self.flows[value] = flow
