"""Units that nobody reads, found without knowing what they hold.

Following a class exactly (follow.py) fails where its units pass a recurrent layer, a body of control flow, or weights
that are computed from constants (dequantized, reshaped). Whether a unit is *read* needs less: every op either looks at
each unit by itself, or sums the units up with weights, and then the weights of the unit must be zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.axes import Axes, AxisClass
from ...ir.core import Module, Op, Value
from ...ir.evaluate import evaluate_op
from ...ir.ops.access import attr_int
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from . import flow as fl
from .depend import Redundancy
from .rows import Array
from .trace import NotTraced

_RECURRENT = ("LSTM", "GRU", "RNN")
#: Where the zero point of an integer weight stands, by the slot of the weight.
_ZERO_POINTS = {("MatMulInteger", 0): 2, ("MatMulInteger", 1): 3, ("ConvInteger", 1): 3, ("QLinearConv", 3): 5}
#: Ops that look at every unit by itself, beside elementwise ones: true where the class is still there in a result.
_PASSES = """
AveragePool BatchNormalization Cast Concat DequantizeLinear Expand Flatten Gather GlobalAveragePool GlobalMaxPool
Identity InstanceNormalization MaxPool Pad QuantizeLinear ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Reshape Resize Slice Softmax Split Squeeze Tile Transpose Unsqueeze
"""
PASSES = frozenset(_PASSES.split())


def unread(module: Module, axes: Axes, target: AxisClass, ops: Sequence[Op]) -> Redundancy | None:
    """The units of a class that every consumer multiplies by zero; None if there are none, or it cannot be said.

    `ops` are those that touch the class. One unit stays.
    """
    if "count-sensitive" in target.marks:
        return None  # a norm or a softmax reads every unit
    walk = _Walk(module, axes, target, np.zeros(target.size, bool))
    try:
        for op in ops:
            walk.visit(op)
    except NotTraced:
        return None
    gone = np.nonzero(~walk.read)[0] if walk.consumed else np.zeros(0, np.int64)
    gone = gone[1:] if len(gone) == target.size else gone
    kept = np.setdiff1d(np.arange(target.size), gone)
    none = np.zeros(0, np.int64)
    return Redundancy(gone, none, none, none, kept, np.zeros((len(gone), len(kept)))) if len(gone) else None


@dataclass
class _Walk:
    module: Module
    axes: Axes
    target: AxisClass
    read: Array  # which units an op multiplies by anything but zero
    consumed: bool = False
    static: set[Value] = field(default_factory=set)  # computed from constants alone
    arrays: dict[Value, Array] = field(default_factory=dict)

    def visit(self, op: Op) -> None:
        """Mark the units that the op reads. Raises NotTraced."""
        if op.is_terminator or op.regions or op.kind in ("Shape", "Size"):
            return  # bodies are walked by their own ops
        if all(v is None or self._is_static(v) for v in op.operands) and not lookup(op.kind).has(Trait.RANDOM):
            self.static.update(op.results)  # makes a weight
            return
        contracted = False
        for sides in _sums(op):
            contracted |= self._contract(op, sides)
        if not contracted and any(self._carries(v) for v in op.operands if v is not None and not self._is_static(v)):
            self._pass(op)

    def _contract(self, op: Op, sides: Sequence[tuple[int, int]]) -> bool:
        """One sum over an axis: `sides` are the operands with that axis, of which a static one must be zero."""
        found = [(v, slot, axis) for slot, axis in sides if (v := op.operand(slot)) is not None and self._at(v, axis)]
        if not found:
            return False
        value, slot, axis = next((side for side in found if self._is_static(side[0])), (None, 0, 0))
        types = self.axes.of(value) if value is not None else None
        if value is None or types is None:
            raise NotTraced(op, "it is contracted between two computed tensors")
        array = self._centered(op, slot, self._array(value))
        axis %= array.ndim
        used = np.asarray(array.any(axis=tuple(a for a in range(array.ndim) if a != axis)))
        self.read |= used[fl.unit_positions(self.axes.units(types[axis], self.target))].any(axis=1)
        self.consumed = True
        return True

    def _pass(self, op: Op) -> None:
        known = op.kind in PASSES or lookup(op.kind).has(Trait.ELEMENTWISE) or any(True for _ in _sums(op))
        if not known:
            raise NotTraced(op, "the operator is not followed")
        if not any(self._carries(v) for v in op.results):
            raise NotTraced(op, "its units are summed up")

    def _carries(self, value: Value) -> bool:
        return any(self.target in self.axes.within(t) for t in self.axes.of(value) or ())

    def _at(self, value: Value, axis: int) -> bool:
        types = self.axes.of(value)
        return types is not None and self.target in self.axes.within(types[axis])

    def _centered(self, op: Op, slot: int, codes: Array) -> Array:
        """Integer weights less their zero point, one for all or one for each output (their other axis)."""
        place = _ZERO_POINTS.get((op.kind, slot))
        point = op.operand(place) if place is not None else None
        if point is None:
            return codes
        if not self._is_static(point):
            raise NotTraced(op, "its zero point is computed")
        zero = self._array(point)
        columns = op.kind == "MatMulInteger" and slot == 1  # [..., inputs, outputs]; all others have outputs first
        if zero.ndim == 1 and not columns:
            zero = zero.reshape(-1, *(1,) * (codes.ndim - 1))
        return np.asarray(codes.astype(np.int64) - zero.astype(np.int64))

    def _is_static(self, value: Value) -> bool:
        return value.constant is not None or value in self.static

    def _array(self, value: Value) -> Array:
        """What a static value is."""
        if value.constant is not None:
            return value.constant.array()
        if value not in self.arrays:
            assert value.op is not None
            arrays = [None if v is None else self._array(v) for v in value.op.operands]
            self.arrays.update(zip(value.op.results, evaluate_op(value.op, arrays, module=self.module)))
        return self.arrays[value]


def _sums(op: Op) -> Iterator[tuple[tuple[int, int], ...]]:
    """The sums that an op makes: for each the operands that hold the summed axis, and which axis it is."""
    if op.kind in ("Conv", "ConvInteger"):
        yield ((1, 1),)
    elif op.kind == "QLinearConv":
        yield ((3, 1),)
    elif op.kind == "ConvTranspose":
        yield ((1, 0),)
    elif op.kind == "Gemm":
        yield ((1, 1 if attr_int(op, "transB") else 0), (0, 0 if attr_int(op, "transA") else 1))
    elif op.kind in ("MatMul", "MatMulInteger"):
        yield ((1, _rows(op.operands[1])), (0, -1))
    elif op.kind in _RECURRENT:
        yield ((1, 2),)  # inputs [directions, gates * hidden, inputs]
        yield ((2, 2),)  # states [directions, gates * hidden, hidden]


def _rows(matrix: Value | None) -> int:
    """The summed axis of the second operand of a matrix product."""
    rank = getattr(matrix.type, "rank", 2) if matrix is not None else 2
    return -2 if rank > 1 else -1
