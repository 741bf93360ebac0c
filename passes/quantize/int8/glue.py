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
from ....ir.ops.access import attr_text
from ....ir.types import TensorType


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
    return len(op.operands) == 2


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
}  # fmt: skip


def glue_of(op: Op) -> Glue | None:
    """How the op works on codes of floats; None if it has to have floats."""
    glue = GLUE.get(op.kind)
    if glue is None or not glue.fits(op) or not all(_is_float(v) for v in (*data_of(op, glue), op.results[0])):
        return None
    return glue


def data_of(op: Op, glue: Glue) -> tuple[Value, ...]:
    """The operands that hold data, those left out aside."""
    operands = op.operands if glue.every_operand else op.operands[:1]
    return tuple(v for v in operands if v is not None)


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is DType.F32


def upper_bound(op: Op) -> float | None:
    """The largest value that an activation with the least value 0 lets through (inf for Relu); None for others.

    On a grid whose least code stands for 0 and whose largest for no more than the bound, rounding does what such an
    activation does: it is left out.
    """
    if op.kind == "Relu":
        return float("inf")
    if op.kind != "Clip":
        return None
    low, high = (_number(op.operand(slot)) for slot in (1, 2))
    if low != 0 or (op.operand(2) is not None and (high is None or not high > 0)):
        return None
    return float("inf") if high is None else high


def _number(value: Value | None) -> float | None:
    if value is None or value.constant is None or value.constant.elements != 1:
        return None
    return float(value.constant.array().reshape(()))
