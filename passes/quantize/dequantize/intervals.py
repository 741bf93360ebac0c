"""What is known of the range of a value from the operators that made it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....ir.core import Op, Value
from .grids import parameter

Interval = tuple[float, float]

_ANY: Interval = (-np.inf, np.inf)
_POSITIVE: Interval = (0.0, np.inf)
_DEPTH = 12  # operators that are looked through
#: Operators whose results lie in a range whatever they are given.
_FIXED: dict[str, Interval] = {
    "Relu": _POSITIVE, "Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0),
    "Abs": _POSITIVE, "Exp": _POSITIVE, "Sqrt": _POSITIVE, "Softplus": _POSITIVE, "ReduceL1": _POSITIVE,
    "ReduceL2": _POSITIVE, "ReduceSumSquare": _POSITIVE,
}  # fmt: skip
#: Operators whose results are elements, or means, of their first operand. Zeros of a padding may take part: every range
#: of codes holds 0, so they never make a difference.
_KEEPING = frozenset({
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "GatherElements",
    "GatherND", "Expand", "Tile", "Split", "DepthToSpace", "SpaceToDepth", "MaxPool", "AveragePool", "GlobalMaxPool",
    "GlobalAveragePool", "ReduceMax", "ReduceMin", "ReduceMean", "Dropout",
})  # fmt: skip


def interval(value: Value | None, depth: int = _DEPTH) -> Interval:
    """(least, largest) that a value can be; infinite where nothing is known."""
    if value is None or value.op is None or depth == 0:
        return _ANY
    op = value.op
    if op.kind in _FIXED:
        return _FIXED[op.kind]
    if (op.kind in _KEEPING and value.index == 0) or op.kind == "Split":
        return interval(op.operand(0), depth - 1)
    rule = _RULES.get(op.kind)
    return rule(op, depth - 1) if rule is not None else _ANY


def _clip(op: Op, depth: int) -> Interval:
    low, high = interval(op.operand(0), depth)
    ends = [parameter(op.operand(slot)) for slot in (1, 2)]
    least, most = (float(end.max()) if end is not None else other for end, other in zip(ends, (-np.inf, np.inf)))
    return min(max(low, least), most), max(min(high, most), least)


def _concat(op: Op, depth: int) -> Interval:
    found = [interval(v, depth) for v in op.operands]
    return min(low for low, _ in found), max(high for _, high in found)


_RULES: dict[str, Callable[[Op, int], Interval]] = {
    "Clip": _clip,
    "Concat": _concat,
}
