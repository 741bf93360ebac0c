"""Units that nobody reads, found without knowing what they hold.

Following a class exactly (follow.py) fails where its units pass a recurrent layer, a body of control flow, or weights
that are computed from constants (dequantized, reshaped). Whether a unit is *read* needs less: every op either looks at
each unit by itself, or sums the units up with weights, and then the weights of the unit must be zero. The range of a
dynamic quantization reads every unit that is not zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.axes import Axes, AxisClass
from ....ir.core import Module, Op
from ....ir.ops.opdef import Trait
from ....ir.ops.table import lookup
from .depend import Redundancy
from .rows import Array
from .statics import Side, Statics, sums
from .trace import NotTraced
from .zeros import Zeros

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
    walk = _Walk(module, axes, target)
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


class _Walk:
    def __init__(self, module: Module, axes: Axes, target: AxisClass) -> None:
        self.read: Array = np.zeros(target.size, bool)  # which units an op multiplies by anything but zero
        self.consumed = False
        self.statics = Statics(module, axes, target)
        self.zeros = Zeros(self.statics)

    def visit(self, op: Op) -> None:
        """Mark the units that the op reads. Raises NotTraced."""
        if op.is_terminator or op.regions or op.kind in ("Shape", "Size"):
            return  # bodies are walked by their own ops
        if self.statics.admit(op):
            return  # makes a weight
        contracted = False
        for sides in sums(op):
            contracted |= self._contract(op, sides)
        moving = [v for v in op.operands if v is not None and v not in self.statics and self.statics.places(v)]
        if moving and not contracted:
            self._pass(op)
        self.zeros.visit(op)

    def _contract(self, op: Op, sides: Sequence[Side]) -> bool:
        """One sum over an axis: `sides` are the operands with that axis, of which a static one must be zero."""
        held = [(slot, axis) for slot, axis in sides if axis in self.statics.places(op.operand(slot))]
        if not held:
            return False
        static = [side for side in held if op.operand(side[0]) in self.statics]
        if not static:
            raise NotTraced(op, "it is contracted between two computed tensors")
        self.read |= self.statics.nonzero(op, *static[0])
        self.consumed = True
        return True

    def _pass(self, op: Op) -> None:
        if op.kind == "DynamicQuantizeLinear":
            self.read |= ~self.zeros.of(op.operand(0))
            return
        known = op.kind in PASSES or lookup(op.kind).has(Trait.ELEMENTWISE) or any(True for _ in sums(op))
        if not known:
            raise NotTraced(op, "the operator is not followed")
        if not any(self.statics.places(v) for v in op.results):
            raise NotTraced(op, "its units are summed up")
