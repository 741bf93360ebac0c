"""Uniform quantization: what a grid is, and the exact reference that everything else is held to.

    code  = clip(round_half_even(x / scale) + zero, qmin, qmax)
    x_hat = (code - zero) * scale

`QSpec` says how a tensor is cut into groups that share a scale: the whole tensor, one group per index of an axis,
or blocks along an axis (the last one may be short). Zero always has a code of its own, so zeros stay zero.
Streaming quantization of big constants is in ir/quant_blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .dtypes import DType

Array = np.ndarray[Any, Any]

#: (bits, signed) to the element type that stores the codes.
_STORAGE = {
    (2, False): DType.U2, (2, True): DType.I2, (4, False): DType.U4, (4, True): DType.I4,
    (8, False): DType.U8, (8, True): DType.I8, (16, False): DType.U16, (16, True): DType.I16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class QSpec:
    """A family of grids. `axis` None: one scale for the tensor; `block` 0: one scale per index of `axis`;
    else one scale per `block` consecutive indices along `axis` and per index of every other axis."""

    bits: int
    signed: bool
    symmetric: bool  # the zero point is 0 for signed codes, the middle of the range for unsigned ones
    axis: int | None = None
    block: int = 0

    @property
    def qmin(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point of symmetric grids."""
        return 0 if self.signed else 1 << (self.bits - 1)

    @property
    def storage(self) -> DType:
        """The least element type of ONNX that holds the codes (3 bits are stored in 4, 6 in 8)."""
        bits = next(b for b in (2, 4, 8, 16) if b >= self.bits)
        return _STORAGE[bits, self.signed]

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of scales and zero points, as DequantizeLinear wants it."""
        if self.axis is None:
            return ()
        axis = self.axis % len(shape)
        if not self.block:
            return (shape[axis],)
        return (*shape[:axis], -(-shape[axis] // self.block), *shape[axis + 1 :])


def expand(parameter: Array, shape: tuple[int, ...], spec: QSpec) -> Array:
    """Scales or zero points, one for every element of a tensor of `shape` (or broadcastable to it)."""
    if spec.axis is None:
        return parameter.reshape((1,) * len(shape))
    axis = spec.axis % len(shape)
    if not spec.block:
        return parameter.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    repeated = np.repeat(parameter, spec.block, axis)
    return repeated[tuple(slice(0, shape[axis]) if i == axis else slice(None) for i in range(len(shape)))]


def quantize(x: Array, scale: Array, zero: Array | None, spec: QSpec) -> Array:
    """The codes of `x`, one element each, in the numpy type of `spec.storage`."""
    real = np.asarray(x, np.float32) / expand(np.asarray(scale, np.float32), x.shape, spec)
    offset = spec.middle if zero is None else expand(np.asarray(zero).astype(np.float32), x.shape, spec)
    return np.clip(np.rint(real) + offset, spec.qmin, spec.qmax).astype(np.int32).astype(spec.storage.numpy)


def dequantize(codes: Array, scale: Array, zero: Array | None, spec: QSpec) -> Array:
    """The values that codes stand for, in the element type of `scale`."""
    offset = spec.middle if zero is None else expand(np.asarray(zero).astype(np.int32), codes.shape, spec)
    steps = (codes.astype(np.int32) - offset).astype(np.float32)
    return np.asarray(steps * expand(np.asarray(scale, np.float32), codes.shape, spec)).astype(scale.dtype)


def min_max(x: Array, spec: QSpec, *, scale_type: DType = DType.F32) -> tuple[Array, Array]:
    """Scales and zero points that just cover `x`, for groups along the last axes as `scale_shape` orders them.

    `x` is [group, M]: M independent groups, one a column. Returns two arrays [M]: float32 scales that `scale_type`
    can hold exactly, and float32 zero points (whole numbers).
    """
    low, high = np.minimum(x.min(0), 0), np.maximum(x.max(0), 0)
    return grid(low, high, spec, scale_type=scale_type)


def grid(low: Array, high: Array, spec: QSpec, *, scale_type: DType = DType.F32) -> tuple[Array, Array]:
    """The scale and zero point of grids that cover [low, high]; `low <= 0 <= high`, elementwise."""
    if spec.symmetric:
        reach = spec.qmax - spec.middle
        scale = settle_scale(np.maximum(high, -low) / np.float32(reach), scale_type)
        return scale, np.full_like(scale, spec.middle)
    scale = settle_scale((high - low) / np.float32(spec.qmax - spec.qmin), scale_type)
    zero = np.rint(spec.qmin - low / scale)
    return scale, np.minimum(np.maximum(zero, spec.qmin), spec.qmax)


def settle_scale(scale: Array, scale_type: DType) -> Array:
    """Scales rounded to what `scale_type` holds (returned as float32): never 0, never infinite.

    A group of zeros gets scale 1. A scale too small for the type becomes the least one it has: without that, blocks
    that pruning emptied would divide by zero.
    """
    if scale_type is DType.F32:
        least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
        rounded = scale.astype(np.float32)
    else:
        limits = np.finfo(np.float16)
        least, most = float(limits.smallest_subnormal), float(limits.max)
        with np.errstate(over="ignore", under="ignore"):
            rounded = scale.astype(np.float16).astype(np.float32)
    settled = np.minimum(np.maximum(rounded, np.float32(least)), np.float32(most))
    return np.where(scale == 0, np.float32(1), settled)
