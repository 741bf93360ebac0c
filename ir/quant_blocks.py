"""Round-to-nearest quantization of constants in blocks, in pieces: memory stays bounded whatever the tensor's size.

Per block, the grid with the least squared error is taken among clips of the block's range (the full range, min-max,
is one of them) and the scale that least squares fits to the codes; scales are rounded to their stored type before
codes are, so that the error that is minimised is the error that the artifact makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .constants import Constant, PackedPayload
from .dtypes import DType
from .quant import QSpec, grid, settle_scale
from .types import TensorType

Array = np.ndarray[Any, Any]

#: The share of a block's range that is kept. Beyond these nine the error falls by less than 1 %.
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
_PIECE = 1 << 20  # elements that are read at once
_CACHE = 1 << 16  # elements that are searched at once: three float32 buffers of that size fit a level-2 cache


@dataclass(frozen=True)
class Quantized:
    """A constant on a grid: packed codes, scales, zero points (None where the middle of the range is meant)."""

    codes: Constant
    scale: Constant
    zero: Constant | None
    error: float  # sum of squared differences
    power: float  # sum of squares of the original

    @property
    def relative_error(self) -> float:
        return self.error / self.power if self.power else 0.0

    @property
    def nbytes(self) -> int:
        return sum(c.nbytes for c in (self.codes, self.scale, self.zero) if c is not None)


def search(x: Array, spec: QSpec, scale_type: DType, clips: tuple[float, ...] = CLIPS) -> tuple[Array, Array, Array]:
    """Scale, zero point and squared error of the best grid of every column of `x` [block, M] (float32)."""
    low, high = np.minimum(x.min(0), 0), np.maximum(x.max(0), 0)
    scaled, rounded = np.empty_like(x), np.empty_like(x)

    def squared_error(scale: Array, zero: Array) -> Array:
        np.multiply(x, 1 / scale, out=scaled)
        np.rint(scaled, out=rounded)
        np.maximum(rounded, spec.qmin - zero, out=rounded)
        np.minimum(rounded, spec.qmax - zero, out=rounded)
        np.subtract(scaled, rounded, out=scaled)
        np.square(scaled, out=scaled)
        total: Array = scaled.sum(0) * scale * scale
        return total

    best_scale, best_zero = grid(low, high, spec, scale_type=scale_type)
    best = squared_error(best_scale, best_zero)
    for clip in clips:
        if clip == 1.0:
            continue
        scale, zero = grid(low * np.float32(clip), high * np.float32(clip), spec, scale_type=scale_type)
        found = squared_error(scale, zero)
        better = found < best
        best = np.where(better, found, best)
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, zero, best_zero)
    if len(clips) > 1:
        squared_error(best_scale, best_zero)  # leaves the codes in `rounded`
        fitted = np.einsum("ij,ij->j", x, rounded) / np.maximum(np.einsum("ij,ij->j", rounded, rounded), 1e-30)
        scale = settle_scale(np.where(fitted > 0, fitted, best_scale), scale_type)
        found = squared_error(scale, best_zero)
        better = found < best
        best, best_scale = np.where(better, found, best), np.where(better, scale, best_scale)
    return best_scale, best_zero, best


def _codes(x: Array, scale: Array, zero: Array, spec: QSpec) -> Array:
    """The codes of the columns of `x` on their grids, as bytes (two's complement if signed)."""
    real = np.rint(x / scale)
    real += zero
    np.clip(real, spec.qmin, spec.qmax, out=real)
    return real.astype(np.int8 if spec.signed else np.uint8).view(np.uint8)


def quantize_constant(
    constant: Constant, spec: QSpec, *, scale_type: DType = DType.F16, clips: tuple[float, ...] = CLIPS
) -> Quantized:
    """A constant of finite floats in blocks along `spec.axis`; the last block may be short."""
    assert spec.axis is not None
    assert spec.block
    assert spec.bits in (2, 4, 8)
    shape = constant.shape
    storage, scale_shape = spec.storage, spec.scale_shape(shape)
    codes = np.zeros(storage.nbytes(constant.elements), np.uint8)
    scales, zeros = np.empty(scale_shape, np.float32), np.empty(scale_shape, np.uint8)
    flat_scales, flat_zeros = scales.reshape(-1), zeros.reshape(-1)
    error = power = 0.0
    for piece in pieces(constant, spec):
        for columns in _in_cache(piece.x):
            part = piece.x[:, columns]
            scale, zero, squared = search(part, spec, scale_type, clips)
            piece.codes[:, columns] = _codes(part, scale, zero, spec)
            at = slice(piece.group + columns.start, piece.group + columns.start + part.shape[1])
            flat_scales[at], flat_zeros[at] = scale, zero.astype(np.int16).astype(np.uint8)
            error += float(squared.sum(dtype=np.float64))
            power += float(np.einsum("ij,ij->", part, part, dtype=np.float64))
        write_codes(codes, piece.start, piece.flat_codes(), spec.bits)
    return Quantized(
        Constant(TensorType(storage, shape), PackedPayload(codes, storage, shape), constant.origin),
        Constant.of(scales.astype(scale_type.numpy), scale_type, constant.origin),
        None if spec.symmetric else packed(zeros, storage, constant.origin),
        error,
        power,
    )


def packed(codes: Array, storage: DType, origin: str = "") -> Constant:
    """A constant in the file form from codes, one a byte."""
    raw = np.zeros(storage.nbytes(codes.size), np.uint8)
    write_codes(raw, 0, codes.reshape(-1), storage.bits)
    return Constant(TensorType(storage, codes.shape), PackedPayload(raw, storage, codes.shape), origin)


def _in_cache(x: Array) -> Iterator[slice]:
    width = max(1, _CACHE // max(1, x.shape[0]))
    for start in range(0, x.shape[1], width):
        yield slice(start, min(start + width, x.shape[1]))


def largest(constant: Constant) -> float:
    """The largest magnitude in a constant of floats (NaN if there is one); reads it once, in pieces."""
    found = 0.0
    for piece in _flat_pieces(constant):
        found = float(np.maximum(found, np.maximum(piece.max(), -piece.min())))  # keeps NaN, unlike max()
    return found


def fitting_scale_type(most: float, spec: QSpec, wished: DType) -> DType:
    """`wished`, or float32 where the scales of a tensor of largest magnitude `most` are not for float16."""
    steps = spec.qmax - spec.qmin
    limits = np.finfo(np.float16)
    fits = most == 0 or (most / steps >= float(limits.smallest_normal) and 2 * most / steps <= float(limits.max))
    return wished if wished is not DType.F16 or fits else DType.F32


def _flat_pieces(constant: Constant) -> Iterator[Array]:
    for start in range(0, constant.elements, _PIECE):
        yield constant.flat(start, start + _PIECE).astype(np.float32, copy=False)


@dataclass
class Piece:
    """Some groups of a tensor: `x` [block, groups] in float32, padded with zeros where the last block is short.

    `start` is the first element in the flat tensor, `group` the first group in the flat scales.
    """

    x: Array
    start: int
    group: int
    rows: tuple[int, int] | None  # (rows, row length) when groups lie along rows; None when they are columns
    height: int  # rows of `x` that are elements, not padding

    def __post_init__(self) -> None:
        self.codes = np.empty(self.x.shape, np.uint8)

    def flat_codes(self) -> Array:
        """The codes in the order of the flat tensor."""
        if self.rows is None:
            return self.codes[: self.height].reshape(-1)
        count, length = self.rows
        return np.ascontiguousarray(self.codes.T.reshape(count, -1)[:, :length]).reshape(-1)


def pieces(constant: Constant, spec: QSpec) -> Iterator[Piece]:
    """A tensor in pieces of about a million elements, each a set of whole groups."""
    assert spec.axis is not None
    shape = constant.shape
    axis = spec.axis % len(shape)
    depth, inner = shape[axis], _product(shape[axis + 1 :])
    outer = _product(shape[:axis])
    if constant.elements == 0:
        return
    if inner == 1:
        yield from _row_pieces(constant, outer, depth, spec.block)
    else:
        yield from _column_pieces(constant, outer, depth, inner, spec.block)


def _row_pieces(constant: Constant, rows: int, length: int, block: int) -> Iterator[Piece]:
    """Groups along the rows of a [rows, length] matrix."""
    blocks = -(-length // block)
    step = max(1, _PIECE // length)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        flat = constant.flat(first * length, (first + count) * length).astype(np.float32, copy=False)
        padded = np.zeros((count, blocks * block), np.float32)
        padded[:, :length] = flat.reshape(count, length)
        x = np.ascontiguousarray(padded.reshape(count * blocks, block).T)
        yield Piece(x, first * length, first * blocks, (count, length), block)


def _column_pieces(constant: Constant, outer: int, depth: int, inner: int, block: int) -> Iterator[Piece]:
    """Groups along axis 1 of an [outer, depth, inner] tensor: a block of it is [block, inner] in one stretch."""
    for o in range(outer):
        for b, first in enumerate(range(0, depth, block)):
            height = min(block, depth - first)
            start = (o * depth + first) * inner
            x = constant.flat(start, start + height * inner).astype(np.float32, copy=False).reshape(height, inner)
            if height < block:
                x = np.concatenate([x, np.zeros((block - height, inner), np.float32)])
            yield Piece(x, start, (o * -(-depth // block) + b) * inner, None, height)


def write_codes(raw: Array, start: int, codes: Array, bits: int) -> None:
    """Write codes (one a byte; high bits ignored) into packed bytes, from element `start` on, low bits first."""
    per_byte = 8 // bits
    mask = (1 << bits) - 1
    before = start % per_byte
    first = start // per_byte
    lanes = np.zeros((-(-(before + codes.size) // per_byte), per_byte), np.uint8)
    lanes.reshape(-1)[before : before + codes.size] = codes & mask
    packed = lanes[:, 0].copy()
    for lane in range(1, per_byte):
        packed |= lanes[:, lane] << (lane * bits)
    target = raw[first : first + packed.size]
    if before:
        packed[0] |= target[0] & ((1 << (before * bits)) - 1)
    target[:] = packed


def _product(sizes: tuple[int, ...]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
