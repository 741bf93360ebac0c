"""Quantization of constants in groups, in pieces: memory stays bounded whatever the tensor's size.

Groups are blocks along an axis or whole slices of one (`QSpec`). How their grids are found is a function of a matrix
with one group a column (`Search`); `search`, the default, takes the grid with the least squared error among clips of
the group's range (the full range, min-max, is one of them) and the scale that least squares fits to the codes. Scales
are rounded to their stored type before codes are, so that the error that is minimised is the error that the artifact
makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .constants import Constant, PackedPayload
from .dtypes import DType
from .quant import QSpec, grid, settle_scale
from .types import TensorType

Array = np.ndarray[Any, Any]
#: x [group, M] in float32, a family of grids and the type of stored scales -> scales, zero points (both float32 [M])
#: and whatever else the function tells. Scales are what `settle_scale` leaves alone.
Search = Callable[[Array, QSpec, DType], tuple[Array, ...]]

#: The share of a block's range that is kept. More of them lower the error by less than 0.5 %, at any number of bits.
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)
_PIECE = 1 << 20  # elements that are read at once
_CACHE = 1 << 16  # elements that are searched at once: three float32 buffers of that size fit a level-2 cache
_LONG = 256  # groups of so many elements are searched where they lie; shorter ones as columns of a transposed copy


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


def encode(x: Array, scale: Array, zero: Array, spec: QSpec) -> tuple[Array, float]:
    """The codes of the columns of `x` on their grids, as bytes (two's complement if signed), and the squared error."""
    real = x / scale
    steps = np.rint(real)
    np.maximum(steps, spec.qmin - zero, out=steps)
    np.minimum(steps, spec.qmax - zero, out=steps)
    real -= steps
    real *= scale
    error = _power(real)
    steps += zero
    return steps.astype(np.int8 if spec.signed else np.uint8).view(np.uint8), error


def _power(x: Array) -> float:
    """The sum of squares; einsum, because threads of a BLAS cost more than they save here."""
    flat = x.ravel(order="K")
    return float(np.einsum("i,i->", flat, flat))


def quantize_constant(
    constant: Constant, spec: QSpec, *, scale_type: DType = DType.F16, search: Search = search
) -> Quantized:
    """A constant of finite floats on the grids that `search` finds: in blocks along `spec.axis` (the last may be
    short), or per index of it (`spec.block` 0)."""
    assert spec.axis is not None
    shape = constant.shape
    axis = spec.axis % len(shape)
    if not spec.block and axis != 0:
        return _aside(constant, spec, axis, scale_type, search)
    storage, scale_shape = spec.storage, spec.scale_shape(shape)
    codes = np.zeros(storage.nbytes(constant.elements), np.uint8)
    scales, zeros = np.empty(scale_shape, np.float32), np.empty(scale_shape, np.uint8)
    flat_scales, flat_zeros = scales.reshape(-1), zeros.reshape(-1)
    error = power = 0.0
    for piece in pieces(constant, spec):
        for columns in _in_cache(piece.x):
            part = piece.x[:, columns]
            scale, zero = search(part, spec, scale_type)[:2]
            piece.codes[:, columns], missed = encode(part, scale, zero, spec)
            at = slice(piece.group + columns.start, piece.group + columns.start + part.shape[1])
            flat_scales[at], flat_zeros[at] = scale, zero.astype(np.int16).astype(np.uint8)
            error += missed
        power += _power(piece.x)
        write_codes(codes, piece.start, piece.flat_codes(), storage.bits)
    return Quantized(
        Constant(TensorType(storage, shape), PackedPayload(codes, storage, shape), constant.origin),
        Constant.of(scales.astype(scale_type.numpy), scale_type, constant.origin),
        None if spec.symmetric else packed(zeros, storage, constant.origin),
        error,
        power,
    )


def _aside(constant: Constant, spec: QSpec, axis: int, scale_type: DType, search: Search) -> Quantized:
    """One grid per index of an axis that is not the first: its slices are gathered, in a copy of the tensor."""
    made = quantize_constant(_first(constant, axis), replace(spec, axis=0), scale_type=scale_type, search=search)
    codes = np.moveaxis(made.codes.array().view(np.uint8), 0, axis)
    return replace(made, codes=packed(np.ascontiguousarray(codes), spec.storage, constant.origin))


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
    """Some groups of a tensor: `x` [group, groups] in float32, padded with zeros where the last block is short.

    `start` is the first element in the flat tensor, `group` the first group in the flat scales. `shape` is (outer,
    depth, inner) of the elements that the piece covers: groups lie along `depth`.
    """

    x: Array
    start: int
    group: int
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        self.codes = np.empty_like(self.x, np.uint8)

    def flat_codes(self) -> Array:
        """The codes in the order of the flat tensor."""
        outer, depth, inner = self.shape
        block = len(self.codes)
        if outer == 1 and depth <= block:
            return self.codes[:depth].reshape(-1)
        rows = self.codes.T.reshape(outer, -1, inner, block) if inner > 1 else self.codes.T.reshape(outer, -1, block)
        rows = np.swapaxes(rows, 2, 3) if inner > 1 else rows
        return np.ascontiguousarray(rows.reshape(outer, -1, inner)[:, :depth]).reshape(-1)


def pieces(constant: Constant, spec: QSpec) -> Iterator[Piece]:
    """A tensor in pieces of about a million elements, each a set of whole groups."""
    if constant.elements == 0:
        return
    outer, depth, inner, block = _extent(constant.shape, spec)
    if depth * inner <= _PIECE:
        yield from _whole(constant, outer, depth, inner, block)
    else:
        for o in range(outer):
            yield from _parts(constant, o, depth, inner, block)


def _extent(shape: tuple[int, ...], spec: QSpec) -> tuple[int, int, int, int]:
    """(outer, depth, inner, block): a view of the tensor in which groups are blocks along the middle axis."""
    assert spec.axis is not None
    axis = spec.axis % len(shape)
    outer, depth, inner = _product(shape[:axis]), shape[axis], _product(shape[axis + 1 :])
    if spec.block:
        return outer, depth, inner, spec.block
    assert axis == 0
    return depth, inner, 1, max(1, inner)


def sampled(constant: Constant, spec: QSpec, elements: int) -> Array:
    """About `elements` elements of a tensor, in whole groups evenly spaced: [group, M] in float32."""
    if spec.axis is not None and not spec.block and spec.axis % len(constant.shape):
        constant, spec = _first(constant, spec.axis), replace(spec, axis=0)
    outer, depth, inner, block = _extent(constant.shape, spec)
    blocks = -(-depth // block)
    if inner == 1:  # rows, if they are not too long
        height = depth if depth <= elements else block
    else:
        height = block
    parts = -(-depth // height)
    wanted = max(1, elements // max(1, height * inner))
    picked = np.unique(np.linspace(0, outer * parts - 1, min(wanted, outer * parts)).astype(np.int64))
    found = []
    for at in picked.tolist():
        o, part = divmod(at, parts)
        first = part * height
        start = (o * depth + first) * inner
        found.append(_piece(constant, start, o * blocks, (1, min(height, depth - first), inner), block).x)
    return np.concatenate(found, axis=1)


def _first(constant: Constant, axis: int) -> Constant:
    """A copy of a tensor with an axis in front."""
    return Constant.of(np.ascontiguousarray(np.moveaxis(constant.array(), axis, 0)))


def _whole(constant: Constant, outer: int, depth: int, inner: int, block: int) -> Iterator[Piece]:
    """Pieces of some [depth, inner] slices each."""
    blocks = -(-depth // block)
    step = max(1, _PIECE // (depth * inner))
    for first in range(0, outer, step):
        count = min(step, outer - first)
        yield _piece(constant, first * depth * inner, first * blocks * inner, (count, depth, inner), block)


def _parts(constant: Constant, o: int, depth: int, inner: int, block: int) -> Iterator[Piece]:
    """Pieces of slice `o`, some blocks each."""
    blocks = -(-depth // block)
    step = max(1, _PIECE // (block * inner)) if inner == 1 else 1
    for first in range(0, blocks, step):
        height = min(step * block, depth - first * block)
        start = (o * depth + first * block) * inner
        yield _piece(constant, start, (o * blocks + first) * inner, (1, height, inner), block)


def _piece(constant: Constant, start: int, group: int, shape: tuple[int, int, int], block: int) -> Piece:
    outer, depth, inner = shape
    flat = constant.flat(start, start + outer * depth * inner).astype(np.float32, copy=False)
    x = flat.reshape(shape)
    blocks = -(-depth // block)
    if depth % block:
        x = np.zeros((outer, blocks * block, inner), np.float32)
        x[:, :depth] = flat.reshape(shape)
    if outer * blocks == 1:
        return Piece(x.reshape(block, inner), start, group, shape)
    columns = np.moveaxis(x.reshape(outer * blocks, block, inner), 1, 0).reshape(block, -1)
    if inner == 1 and block < _LONG:
        columns = np.ascontiguousarray(columns)
    return Piece(columns, start, group, shape)


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
