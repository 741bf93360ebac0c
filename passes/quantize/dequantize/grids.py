"""Grids as operators state them: scale and zero point are operands, the axis an attribute or a rule of the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ....ir.constants import Constant
from ....ir.core import Op, Value
from ....ir.dtypes import DType
from ....ir.ops.access import attr_int
from ....ir.types import TensorType, UnrankedTensor
from .payloads import DequantizedPayload, viewed

Array = np.ndarray[Any, Any]
_SMALL = 1 << 24  # parameters are read at once
_RENAMING = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def dtype_of(value: Value) -> DType | None:
    return value.type.dtype if isinstance(value.type, TensorType | UnrankedTensor) else None


def parameter(value: Value | None) -> Array | None:
    """The elements of a constant, also behind a Cast or a change of shape; None if they are computed."""
    if value is None:
        return None
    if value.constant is not None:
        return value.constant.array() if value.constant.elements <= _SMALL else None
    op = value.op
    if op is None or not isinstance(value.type, TensorType) or value.type.static_shape is None:
        return None
    if op.kind in _RENAMING:
        found = parameter(op.operand(0))
        return None if found is None else found.reshape(value.type.static_shape)
    if op.kind == "Cast":
        found = parameter(op.operand(0))
        return None if found is None else found.astype(value.type.dtype.numpy)
    return None


def codes_behind(value: Value | None) -> Constant | None:
    """The constant that a value is, also behind a change of shape."""
    if value is None or value.constant is not None:
        return value.constant if value is not None else None
    if value.op is None or value.op.kind not in _RENAMING or not isinstance(value.type, TensorType):
        return None
    shape = value.type.static_shape
    found = codes_behind(value.op.operand(0))
    return None if found is None or shape is None else viewed(found, found.dtype, shape)


@dataclass(frozen=True, eq=False)
class Grid:
    """What codes stand for: (code - zero) * scale. `axis` is meant where there are several scales."""

    scale: Value
    zero: Value | None = None
    axis: int = 1
    block: int = 0

    @classmethod
    def of(cls, op: Op) -> Grid:
        """The grid of a QuantizeLinear or DequantizeLinear."""
        scale = op.operand(1)
        assert scale is not None
        return cls(scale, op.operand(2), attr_int(op, "axis", 1), attr_int(op, "block_size"))

    @property
    def is_whole(self) -> bool:
        """One scale for the tensor."""
        kind = self.scale.type
        return isinstance(kind, TensorType) and kind.static_shape is not None and np.prod(kind.static_shape) == 1

    def same(self, other: Grid) -> bool:
        """Whether codes stand for the same numbers on both."""
        if self.is_whole and other.is_whole:
            return _equal(self.scale, other.scale) and _equal(self.zero, other.zero)
        places = (self.axis, self.block) == (other.axis, other.block)
        return places and _equal(self.scale, other.scale) and _equal(self.zero, other.zero)

    def numbers(self) -> tuple[Array, Array] | None:
        """(scale, zero) if they are constants."""
        scale = parameter(self.scale)
        zero = np.zeros((), np.int32) if self.zero is None else parameter(self.zero)
        return None if scale is None or zero is None else (scale, zero)

    def floats(self, codes: Constant, dtype: DType) -> Constant | str:
        """The numbers that constant codes stand for; a string says why they are not known."""
        found = self.numbers()
        if found is None:
            return "its scale is computed"
        scale, zero = found
        if scale.size == 1:
            return _lazy(DequantizedPayload(codes, scale, zero, dtype), codes)
        rank = len(codes.shape)
        if not -rank <= self.axis < rank:
            return f"its scales lie along axis {self.axis} of {codes.type}"
        axis = self.axis % rank
        parts = -(-codes.shape[axis] // self.block) if self.block else codes.shape[axis]
        wanted = codes.elements // max(1, codes.shape[axis]) * parts if self.block else parts
        if scale.size != wanted:
            return f"{scale.size} scales do not fit {codes.type} along axis {axis}"
        zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero
        return _lazy(DequantizedPayload(codes, scale, zero, dtype, axis, self.block), codes)


def _lazy(payload: DequantizedPayload, codes: Constant) -> Constant:
    return Constant(payload.type, payload, codes.origin)


def _equal(a: Value | None, b: Value | None) -> bool:
    """Whether two parameters are known to hold the same numbers; none is zero."""
    if a is b:
        return True
    x, y = (np.zeros((), np.int32) if v is None else parameter(v) for v in (a, b))
    if x is None or y is None:
        return False
    if x.size == 1 or y.size == 1:
        return bool(np.all(x.astype(np.float64) == y.astype(np.float64)))
    return bool(np.array_equal(x.astype(np.float64), y.astype(np.float64)))


def limits(dtype: DType) -> tuple[float, float]:
    """The least and the largest code of an element type."""
    if dtype.is_float:
        found = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
        return float(found.min), float(found.max)
    top = 1 << (dtype.bits - (1 if dtype.kind == "int" else 0))
    return float(-top if dtype.kind == "int" else 0), float(top - 1)


def reach(grid: Grid, codes: DType, rank: int) -> tuple[Array, Array] | None:
    """The numbers at which a grid saturates, in float32 and broadcastable to a tensor of `rank`; None if unknown."""
    found = grid.numbers()
    if found is None:
        return None
    least, most = limits(codes)
    scale, zero = (x.astype(np.float32) for x in found)
    low, high = (np.float32(least) - zero) * scale, (np.float32(most) - zero) * scale
    if low.size == 1:
        return low.reshape(()), high.reshape(())
    shape = [-1 if i == grid.axis % rank else 1 for i in range(rank)]
    return np.broadcast_to(low, high.shape).reshape(shape), high.reshape(shape)
