"""What operators between quantized ones do to codes: a table from operator to behaviour.

VIEW  elements move or drop out: codes stay, on the grid of the operand
JOIN  several operands become one tensor: one grid where they can share it
OWN   computes in 8 bits with a kernel of its own: its result has a grid of its own
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ....ir.core import Op, Value
from ....ir.dtypes import DType
from ....ir.ops.access import attr_float, attr_text
from ....ir.types import TensorType

_SLOPE = 0.2  # of HardSigmoid, unless it says


class Behaviour(enum.Enum):
    VIEW = "view"
    JOIN = "join"
    OWN = "own"


@dataclass(frozen=True)
class Glue:
    """One kind of operator: what it does, which operands hold data, and where it fits."""

    behaviour: Behaviour
    every_operand: bool = False  # all operands are data, not only the first
    fits: Callable[[Op], bool] = lambda op: True


def _no_indices(op: Op) -> bool:
    return not any(v.uses for v in op.results[1:])


def _nearest(op: Op) -> bool:
    return attr_text(op, "mode", "nearest") == "nearest"


def _pads_with_zeros(op: Op) -> bool:
    """Zero has a code on every grid; edges and reflections are elements that are there."""
    if attr_text(op, "mode", "constant") != "constant":
        return True
    filler = op.operand(2)
    return filler is None or (filler.constant is not None and not np.any(filler.constant.array()))


def _two(op: Op) -> bool:
    """Two tensors, or a tensor and a number: larger constants have a range that one grid need not fit."""
    constant = [v for v in op.operands if v is not None and v.constant is not None]
    return len(op.operands) == 2 and (not constant or (len(constant) == 1 and number(constant[0]) is not None))


def _rises(op: Op) -> bool:
    return attr_float(op, "alpha", _SLOPE) > 0


_VIEW = Glue(Behaviour.VIEW)
GLUE: dict[str, Glue] = {
    **dict.fromkeys(
        ("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "ReduceMax", "ReduceMin", "Reshape", "Slice",
         "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
        _VIEW,
    ),
    "MaxPool": Glue(Behaviour.VIEW, fits=_no_indices),
    "Resize": Glue(Behaviour.VIEW, fits=_nearest),
    "Pad": Glue(Behaviour.VIEW, fits=_pads_with_zeros),
    "Concat": Glue(Behaviour.JOIN, every_operand=True),
    "Add": Glue(Behaviour.OWN, every_operand=True, fits=_two),
    "Mul": Glue(Behaviour.OWN, every_operand=True, fits=_two),
    "AveragePool": Glue(Behaviour.OWN),
    "GlobalAveragePool": Glue(Behaviour.OWN),
    "Sigmoid": Glue(Behaviour.OWN),
    "LeakyRelu": Glue(Behaviour.OWN),
    "HardSigmoid": Glue(Behaviour.OWN, fits=_rises),  # alpha * clip(x + beta / alpha, 0, 1 / alpha)
}  # fmt: skip


def glue_of(op: Op) -> Glue | None:
    """How the op works on codes of floats; None if it has to have floats."""
    glue = GLUE.get(op.kind)
    if glue is None or not glue.fits(op) or not all(is_float(v) for v in (*data_of(op, glue), op.results[0])):
        return None
    return glue


def data_of(op: Op, glue: Glue) -> tuple[Value, ...]:
    """The operands that hold data: not those left out, nor a number that is added or multiplied."""
    operands = op.operands if glue.every_operand else op.operands[:1]
    counts = glue.behaviour is Behaviour.OWN
    return tuple(v for v in operands if v is not None and not (counts and v.constant is not None))


def is_float(value: Value) -> bool:
    """Whether a value is a tensor of the floats that kernels make codes of."""
    return isinstance(value.type, TensorType) and value.type.dtype is DType.F32


def number(value: Value | None) -> float | None:
    """The one element of a constant."""
    if value is None or value.constant is None or value.constant.elements != 1:
        return None
    return float(value.constant.array().reshape(()))


def hard_sigmoid(op: Op) -> tuple[float, float]:
    """(alpha, beta) of a HardSigmoid."""
    return attr_float(op, "alpha", _SLOPE), attr_float(op, "beta", 0.5)


# -- what rounding includes --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """The value on whose grid an op rounds: its result, or what comes of it in ops that rounding includes.

    A clamp whose least value is 0 is included: on a grid whose least code stands for 0 and whose largest for no more
    than `bound`, rounding does what it does. So is a positive factor: the same codes stand for numbers `factor` times
    as large.
    """

    value: Value
    absorbed: tuple[Op, ...] = ()
    bound: float | None = None
    factor: float = 1.0

    @staticmethod
    def of(op: Op) -> Head:
        """The head of an op with a kernel that rounds."""
        alpha, _ = hard_sigmoid(op)
        head = Head(op.results[0], (), 1.0, alpha) if op.kind == "HardSigmoid" else Head(op.results[0])
        while (longer := head._and_next(op)) is not None:
            head = longer
        return head

    def _and_next(self, start: Op) -> Head | None:
        uses = self.value.uses
        if len(uses) != 1 or uses[0].op.parent is not start.parent or uses[0].op.is_terminator:
            return None
        following = uses[0].op
        bound, factor = upper_bound(following), _factor(following, self.value)
        if bound is not None:
            lower = bound if self.bound is None else min(bound, self.bound)
            return Head(following.results[0], (*self.absorbed, following), lower, self.factor)
        if factor is not None:
            scaled = None if self.bound is None else self.bound * factor
            return Head(following.results[0], (*self.absorbed, following), scaled, self.factor * factor)
        return None


def head_of(op: Op) -> Head:
    """The head of any op on codes: moves include nothing of what follows."""
    glue = glue_of(op)
    return Head.of(op) if glue is None or glue.behaviour is Behaviour.OWN else Head(op.results[0])


def upper_bound(op: Op) -> float | None:
    """The largest value that a clamp with the least value 0 lets through (inf for Relu); None for other ops."""
    if op.kind == "Relu":
        return float("inf")
    if op.kind != "Clip":
        return None
    low, high = (number(op.operand(slot)) for slot in (1, 2))
    if low != 0 or (op.operand(2) is not None and (high is None or not high > 0)):
        return None
    return float("inf") if high is None else high


def _factor(op: Op, data: Value) -> float | None:
    """What an op multiplies its data with, if that is a positive number."""
    if op.kind not in ("Mul", "Div") or len(op.operands) != 2 or (op.kind == "Div" and op.operand(0) is not data):
        return None
    other = op.operand(1) if op.operand(0) is data else op.operand(0)
    found = number(other)
    if found is None or not 0 < found < float("inf") or op.results[0].type != data.type:
        return None
    return found if op.kind == "Mul" else 1 / found
