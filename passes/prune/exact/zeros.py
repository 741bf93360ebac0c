"""Which units of a class are zero in a value, whatever the input is: what a dynamic range does not notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ....ir.core import Op, Value
from ....ir.errors import MlcError
from ....ir.evaluate import evaluate_op
from ....ir.ops.opdef import Trait
from ....ir.ops.table import lookup
from ....ir.types import TensorType
from .rows import Array
from .statics import Statics, sums


@dataclass
class Zeros:
    """Grows in program order, one op after the other; nothing is known of a value that was not visited."""

    statics: Statics
    masks: dict[Value, Array] = field(default_factory=dict)

    def of(self, value: Value | None) -> Array:
        """[units]: whether the value is zero wherever it belongs to the unit."""
        size = self.statics.target.size
        if value is None:
            return np.ones(size, bool)
        if value in self.masks:
            return self.masks[value]
        places = self.statics.places(value)
        if value in self.statics and not places:
            return np.full(size, not self.statics.array(value).any())
        if value in self.statics and len(places) == 1:
            use = value.uses[0]
            return ~self.statics.nonzero(use.op, use.slot, places[0])
        return np.zeros(size, bool)

    def visit(self, op: Op) -> None:
        rule = _RULES.get(op.kind, Zeros._elementwise)
        for value in op.results:
            if len(self.statics.places(value)) == 1 and value not in self.statics:
                self.masks[value] = rule(self, op)

    def _first(self, op: Op) -> Array:
        return self.of(op.operand(0))

    def _all(self, op: Op) -> Array:
        return np.asarray(np.all([self.of(v) for v in op.operands if v is not None], axis=0))

    def _any(self, op: Op) -> Array:
        """A product."""
        return np.asarray(np.any([self.of(v) for v in op.operands if self.statics.places(v)], axis=0))

    def _joined(self, op: Op) -> Array:
        """Concat: the operands that hold the class."""
        return np.asarray(np.all([self.of(v) for v in op.operands if self.statics.places(v)], axis=0))

    def _product(self, op: Op) -> Array:
        """A contraction over something else, plus a bias."""
        summed = {side for sides in sums(op) for side in sides}
        found = np.zeros(self.statics.target.size, bool)
        for slot in (0, 1):
            value = op.operand(slot)
            for axis in self.statics.places(value):
                if value is None or (slot, axis) in summed:
                    continue
                found |= ~self.statics.nonzero(op, slot, axis) if value in self.statics else self.of(value)
        bias = op.operand(2) if op.kind in ("Conv", "Gemm") else None
        return np.asarray(found & self.of(bias))

    def _elementwise(self, op: Op) -> Array:
        """Zero where a function of one operand yields zero for zero."""
        value, nothing = op.operand(0), np.zeros(self.statics.target.size, bool)
        one = len(op.operands) == 1 and value is not None and isinstance(value.type, TensorType)
        if not one or not lookup(op.kind).has(Trait.ELEMENTWISE):
            return nothing
        try:
            image = evaluate_op(op, [np.zeros(1, value.type.dtype.numpy)], module=self.statics.module)  # type: ignore[union-attr]
        except MlcError:
            return nothing  # no reference implementation
        return nothing if image[0].any() else self.of(value)


_MOVES = """
AveragePool Cast Dropout Expand Flatten GlobalAveragePool GlobalMaxPool Identity MaxPool Reshape Slice Split Squeeze
Tile Transpose Unsqueeze
"""
_PRODUCTS = "Conv ConvInteger Gemm MatMul MatMulInteger"

_RULES: Mapping[str, Callable[[Zeros, Op], Array]] = {
    **dict.fromkeys(_MOVES.split(), Zeros._first),
    **dict.fromkeys(_PRODUCTS.split(), Zeros._product),
    **dict.fromkeys(("Add", "Sub"), Zeros._all),
    "Concat": Zeros._joined,
    "Div": Zeros._first,
    "Mul": Zeros._any,
}
