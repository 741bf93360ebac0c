"""What does not depend on the input: constants and what is computed from them, seen unit by unit of one class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ....ir.axes import Axes, AxisClass
from ....ir.core import Module, Op, Value
from ....ir.evaluate import evaluate_op
from ....ir.ops.access import attr_int
from ....ir.ops.opdef import Trait
from ....ir.ops.table import lookup
from ....ir.types import TensorType
from . import flow as fl
from .rows import Array
from .trace import NotTraced

#: Where the zero point of an integer weight stands, by the slot of the weight.
_ZERO_POINTS = {("MatMulInteger", 0): 2, ("MatMulInteger", 1): 3, ("ConvInteger", 1): 3, ("QLinearConv", 3): 5}

Side = tuple[int, int]  # an operand and the axis of it that is summed


@dataclass
class Statics:
    """Grows in program order: `admit` every op that touches the class."""

    module: Module
    axes: Axes
    target: AxisClass
    computed: set[Value] = field(default_factory=set)
    arrays: dict[Value, Array] = field(default_factory=dict)

    def admit(self, op: Op) -> bool:
        """Whether the op computes from static values alone; then so are its results."""
        if not op.operands or op.regions or lookup(op.kind).has(Trait.RANDOM):
            return False
        if not all(v is None or v in self for v in op.operands):
            return False
        self.computed.update(op.results)
        return True

    def __contains__(self, value: Value | None) -> bool:
        return value is not None and (value.constant is not None or value in self.computed)

    def array(self, value: Value) -> Array:
        """What a static value is."""
        if value.constant is not None:
            return value.constant.array()
        if value not in self.arrays:
            assert value.op is not None
            operands = [None if v is None else self.array(v) for v in value.op.operands]
            self.arrays.update(zip(value.op.results, evaluate_op(value.op, operands, module=self.module)))
        return self.arrays[value]

    def places(self, value: Value | None) -> list[int]:
        """The axes of a value in which the class occurs."""
        types = (self.axes.of(value) if value is not None else None) or ()
        return [a for a, t in enumerate(types) if self.target in self.axes.within(t)]

    def nonzero(self, op: Op, slot: int, axis: int) -> Array:
        """[units]: whether a static operand of an op holds anything but zero for the unit along an axis."""
        value = op.operand(slot)
        types = self.axes.of(value) if value is not None else None
        assert value is not None
        assert types is not None
        array = self._centered(op, slot, self.array(value))
        used = np.asarray(array.any(axis=tuple(a for a in range(array.ndim) if a != axis)))
        return np.asarray(used[fl.unit_positions(self.axes.units(types[axis], self.target))].any(axis=1))

    def _centered(self, op: Op, slot: int, codes: Array) -> Array:
        """Integer weights less their zero point, one for all or one for each output (their other axis)."""
        place = _ZERO_POINTS.get((op.kind, slot))
        point = op.operand(place) if place is not None else None
        if point is None:
            return codes
        if point not in self:
            raise NotTraced(op, "its zero point is computed")
        zero = self.array(point)
        columns = op.kind == "MatMulInteger" and slot == 1  # [..., inputs, outputs]; all others have outputs first
        if zero.ndim == 1 and not columns:
            zero = zero.reshape(-1, *(1,) * (codes.ndim - 1))
        return np.asarray(codes.astype(np.int64) - zero.astype(np.int64))


def sums(op: Op) -> Iterator[tuple[Side, ...]]:
    """The sums that an op makes: for each the operands that hold the summed axis, and which axis it is."""
    if op.kind in ("Conv", "ConvInteger"):
        yield ((1, 1),)
    elif op.kind == "QLinearConv":
        yield ((3, 1),)
    elif op.kind == "ConvTranspose":
        yield ((1, 0),)
    elif op.kind == "Gemm":
        yield (1, 1 if attr_int(op, "transB") else 0), (0, 0 if attr_int(op, "transA") else 1)
    elif op.kind in ("MatMul", "MatMulInteger"):
        first, second = (_rank(op.operands[slot]) for slot in (0, 1))
        yield (1, max(0, second - 2)), (0, first - 1)
    elif op.kind in ("LSTM", "GRU", "RNN"):
        yield ((1, 2),)  # inputs [directions, gates * hidden, inputs]
        yield ((2, 2),)  # states [directions, gates * hidden, hidden]


def _rank(value: Value | None) -> int:
    return value.type.rank if value is not None and isinstance(value.type, TensorType) else 0
