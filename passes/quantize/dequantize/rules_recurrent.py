"""DynamicQuantizeLSTM: an LSTM whose weights are codes, transposed, with a scale a direction or a gate output."""

from __future__ import annotations

import numpy as np

from ....ir.constants import Constant
from ....ir.core import Op, Value
from ....ir.dtypes import DType
from ...base import SkipCode
from .grids import codes_behind, dtype_of, parameter
from .payloads import DequantizedPayload, TransposedPayload
from .work import Rule, Why, Work, float_name

_OPERANDS = 8  # X, W, R, B, sequence_lens, initial_h, initial_c, P; then scale and zero of W, and of R


def _lstm(work: Work, op: Op) -> Why | None:
    operands = [op.operand(slot) for slot in range(_OPERANDS)]
    dtype = dtype_of(op.results[0])
    assert dtype is not None
    for slot, first in ((1, 8), (2, 10)):
        weight = _weight(work, op, slot, first, dtype)
        if weight is None:
            return Why(SkipCode.NOT_CONSTANT, "its weights or their scales are computed")
        operands[slot] = weight
    while operands and operands[-1] is None:
        operands.pop()
    made = work.rw.insert("LSTM", operands, op.attrs, before=op, count=3)
    work.report(op, "LSTM")
    work.rw.replace(op, [new if old.uses else None for old, new in zip(op.results, made.results)])
    return None


def _weight(work: Work, op: Op, slot: int, first: int, dtype: DType) -> Value | None:
    """Codes [D, in, 4H] with scales [D] or [D, 4H], as floats [D, 4H, in]."""
    value = op.operand(slot)
    codes, scale, zero = codes_behind(value), parameter(op.operand(first)), parameter(op.operand(first + 1))
    if value is None or codes is None or scale is None or (zero is None and op.operand(first + 1) is not None):
        return None
    if zero is not None:
        zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero.reshape(scale.shape)
    axis, block = (0, 0) if scale.ndim < 2 else (1, codes.shape[1])
    floats = DequantizedPayload(codes, scale.reshape(-1), zero, dtype, axis, block)
    turned = TransposedPayload(Constant(floats.type, floats, codes.origin), (0, 2, 1))
    return work.rw.constant(Constant(turned.type, turned, codes.origin), float_name(value))


RULES: dict[str, Rule] = {"com.microsoft::DynamicQuantizeLSTM": _lstm}
