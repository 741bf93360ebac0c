"""What limits the result of a linear operator: its bias and the Relu or Clip that alone read it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ir.core import Op, Value
from ...linear import linear_of

Array = np.ndarray[Any, Any]


def activation_behind(op: Op) -> tuple[float, float, Array | None]:
    """(low, high, bias): the result is clip(W x + bias, low, high). No limits where it goes elsewhere as well.

    `bias` [all outputs] is None where there is none, or none that is constant; then there are no limits either.
    """
    bias = np.zeros(()) if op.operand(2) is None or op.kind == "MatMul" else _vector(op.operand(2))
    if op.kind not in ("MatMul", "Gemm", "Conv", "ConvTranspose") or bias is None:
        return -np.inf, np.inf, None
    follower = _only_reader(op.results[0])
    if op.kind == "MatMul" and follower is not None and follower.kind == "Add":
        added = [v for v in follower.operands if v is not op.results[0]]
        bias = _vector(added[0]) if added else None
        follower = _only_reader(follower.results[0])
    limits = _limits(follower)
    if limits is None or bias is None:
        return -np.inf, np.inf, None
    width = _width(op)
    return *limits, np.broadcast_to(bias.reshape(-1), (width,)).astype(np.float32)


def _width(op: Op) -> int:
    linear = linear_of(op)
    assert linear is not None
    groups, outputs, _ = linear.shape
    return groups * outputs


def _only_reader(value: Value) -> Op | None:
    return value.users[0] if len(value.uses) == 1 else None


def _vector(value: Value | None) -> Array | None:
    """A constant with at most one axis longer than 1."""
    if value is None or value.constant is None or sum(n > 1 for n in value.constant.shape) > 1:
        return None
    return value.constant.array()


def _limits(op: Op | None) -> tuple[float, float] | None:
    if op is not None and op.kind == "Relu":
        return 0.0, np.inf
    if op is None or op.kind != "Clip":
        return None
    ends = [op.operand(i) for i in (1, 2)]
    if any(v is not None and v.constant is None for v in ends):
        return None
    low, high = (None if v is None or v.constant is None else float(v.constant.array()) for v in ends)
    return -np.inf if low is None else low, np.inf if high is None else high
