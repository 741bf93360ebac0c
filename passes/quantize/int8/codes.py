"""Symmetric 8-bit codes of a weight, one scale per channel; read and written in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.constants import Constant
from ....ir.dtypes import DType
from ....ir.quant import QSpec, grid
from ....ir.quant_blocks import Quantized

Array = np.ndarray[Any, Any]
_PIECE = 1 << 20  # elements that are read at once


def symmetric(bits: int, axis: int | None) -> QSpec:
    """The grid of weights: signed, symmetric, in bytes; with 7 bits for runtimes whose products saturate."""
    return QSpec(bits, signed=True, symmetric=True, axis=axis)


def largest_of_channels(constant: Constant, axis: int | None) -> Array:
    """The largest magnitude in each index of `axis` (None: one for all) of a constant of finite floats."""
    layout = _Layout.of(constant, axis)
    most = np.zeros(layout.channels, np.float32)
    for piece in layout.pieces(constant):
        at = piece.channels
        most[at] = np.maximum(most[at], np.abs(piece.x).max(axis=(0, 2), initial=0))
    return most


def quantize_channels(
    constant: Constant, axis: int | None, bits: int, *, least: Array | None = None, scale_type: DType = DType.F32
) -> Quantized:
    """A constant of finite floats, rounded to nearest on the grid of each index of `axis` (None: one for all).

    Scales are those of the largest magnitude, and not below `least` [channels] where given: a bias in steps of
    (scale of the data) x (scale of the weight) must fit 32 bits.
    """
    spec, layout = symmetric(bits, axis), _Layout.of(constant, axis)
    most = largest_of_channels(constant, axis)
    if least is not None:
        most = np.maximum(most, least * np.float32(spec.qmax))
    scale, _ = grid(-most, most, spec, scale_type=scale_type)
    codes = np.empty(constant.elements, np.int8)
    error = power = 0.0
    for piece in layout.pieces(constant):
        step = scale[piece.channels][None, :, None]
        rounded = np.clip(np.rint(piece.x / step), spec.qmin, spec.qmax)
        codes[piece.start : piece.start + piece.x.size] = rounded.reshape(-1)
        error += float(np.square(piece.x - rounded * step).sum(dtype=np.float64))
        power += float(np.square(piece.x).sum(dtype=np.float64))
    shaped = scale if axis is not None else scale.reshape(())
    return Quantized(
        Constant.of(codes.reshape(constant.shape), origin=constant.origin),
        Constant.of(shaped.astype(scale_type.numpy), scale_type, constant.origin),
        None,
        error,
        power,
    )


@dataclass(frozen=True)
class _Piece:
    x: Array  # [outer, channels, inner] in float32
    start: int  # of the flat tensor
    channels: slice


@dataclass(frozen=True)
class _Layout:
    """A tensor as [outer, channels, inner]."""

    outer: int
    channels: int
    inner: int

    @staticmethod
    def of(constant: Constant, axis: int | None) -> _Layout:
        if axis is None:
            return _Layout(constant.elements, 1, 1)
        sizes = constant.shape
        return _Layout(int(np.prod(sizes[:axis])), sizes[axis], int(np.prod(sizes[axis + 1 :])))

    def pieces(self, constant: Constant) -> Iterator[_Piece]:
        if self.outer == 1:
            yield from self._by_channel(constant)
            return
        size = self.channels * self.inner
        step = max(1, _PIECE // max(1, size))
        for first in range(0, self.outer, step):
            count = min(step, self.outer - first)
            x = _floats(constant, first * size, count * size).reshape(count, self.channels, self.inner)
            yield _Piece(x, first * size, slice(0, self.channels))

    def _by_channel(self, constant: Constant) -> Iterator[_Piece]:
        step = max(1, _PIECE // max(1, self.inner))
        for first in range(0, self.channels, step):
            count = min(step, self.channels - first)
            x = _floats(constant, first * self.inner, count * self.inner).reshape(1, count, self.inner)
            yield _Piece(x, first * self.inner, slice(first, first + count))


def _floats(constant: Constant, start: int, count: int) -> Array:
    return constant.flat(start, start + count).astype(np.float32, copy=False)
