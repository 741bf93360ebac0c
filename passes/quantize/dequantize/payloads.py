"""Floats that codes stand for, computed whenever they are read: turning a model back costs no memory.

    x = (code - zero) * scale          in float32, then rounded to the type of the result

Only the stretch that is asked for is read and widened, so that a model is written as floats without ever being held
as floats.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ....ir.constants import Constant, unpack
from ....ir.dtypes import DType
from ....ir.ops.reference_contrib import unpack_bits
from ....ir.types import TensorType

Array = np.ndarray[Any, Any]

_PIECE = 1 << 20  # elements that are widened at once
_PACKED = {2: DType.U2, 4: DType.U4}


class _Rows:
    """A float payload that makes whole rows [units, width] of a tensor; stretches of bytes are cut from those."""

    type: TensorType
    units: int
    width: int

    def rows(self, first: int, stop: int) -> Array:
        """Rows `first` to `stop`, [stop - first, width], in the numpy type of the result."""
        raise NotImplementedError

    def array(self) -> Array:
        shape = self.type.static_shape
        assert shape is not None
        made = np.empty((self.units, self.width), self.type.dtype.numpy)
        step = max(1, _PIECE // max(1, self.width))
        for first in range(0, self.units, step):
            stop = min(first + step, self.units)
            made[first:stop] = self.rows(first, stop)
        return made.reshape(shape)

    def raw(self, start: int, stop: int) -> Array:
        size = self.type.dtype.bits // 8 * self.width  # bytes of a row
        made = np.empty(stop - start, np.uint8)
        step = max(1, _PIECE // max(1, self.width))
        for first in range(start // size, -(-stop // size), step):
            last = min(first + step, -(-stop // size))
            row_bytes = np.ascontiguousarray(self.rows(first, last)).view(np.uint8).reshape(-1)
            begin, end = max(start, first * size), min(stop, last * size)
            made[begin - start : end - start] = row_bytes[begin - first * size : end - first * size]
        return made


class DequantizedPayload(_Rows):
    """Codes on a grid: one scale for the tensor (`axis` None), for every index of `axis`, or for `block` of them."""

    def __init__(
        self, codes: Constant, scale: Array, zero: Array | None, dtype: DType, axis: int | None = None, block: int = 0
    ) -> None:
        self.type = TensorType(dtype, codes.shape)
        self._codes, self._block = codes, block
        self._parts = 1 if axis is None else codes.shape[axis]  # indices of the axis
        inner = 1 if axis is None else prod(codes.shape[axis + 1 :])
        self._columns = axis is None or inner > 1  # a row lies within one index of the axis
        if axis is None:
            self.width = codes.shape[-1] if codes.shape else 1
        else:
            self.width = inner if self._columns else self._parts
        self.units = codes.elements // self.width if self.width else 0
        self._blocks = -(-self._parts // block) if block else self._parts
        self._scale = self._table(np.asarray(scale, np.float32), inner)
        self._zero = None if zero is None or not np.any(zero) else self._table(_whole(zero), inner)

    def _table(self, parameter: Array, inner: int) -> Array:
        """A parameter with one row for every row of codes that has its own."""
        if not self._columns:
            return parameter.reshape(-1, self._blocks)
        return parameter.reshape(-1, inner if self._block else 1)

    def rows(self, first: int, stop: int) -> Array:
        lanes = 8 // min(8, self._codes.dtype.bits)
        begin = first - first % lanes  # a row of narrow codes may start within a byte
        flat = _whole(self._codes.flat(begin * self.width, stop * self.width))
        x = flat.reshape(-1, self.width)[first - begin :]
        if self._zero is not None:
            x = x - self._spread(self._zero, first, stop)
        with np.errstate(over="ignore"):  # float16 ends at 65504, as it does at run time
            return (x.astype(np.float32) * self._spread(self._scale, first, stop)).astype(self.type.dtype.numpy)

    def _spread(self, table: Array, first: int, stop: int) -> Array:
        """The rows of a parameter that go with rows of codes, broadcastable to them."""
        if len(table) == 1 and not self._block:
            return table
        if not self._columns:
            return np.repeat(table[first:stop], self._block, axis=1)[:, : self.width]
        index = np.arange(first, stop)
        outer, part = np.divmod(index, self._parts)
        return table[outer * self._blocks + part // self._block if self._block else part]


def _whole(codes: Array) -> Array:
    """Codes as numbers in which differences are exact: int32, or float32 for 8-bit floats."""
    return codes.astype(
        np.int32 if codes.dtype.kind in "iu" or codes.dtype.name.lstrip("u").startswith("int") else "f4"
    )


class NBitsPayload(_Rows):
    """The matrix [K, N] that MatMulNBits multiplies with: codes [N, blocks, bytes], low bits first, along K.

    `scale` and `zero` are [N, blocks]; `order`, if given, says for every k which block it belongs to.
    """

    def __init__(
        self, packed: Constant, scale: Array, zero: Array, dtype: DType, depth: int, bits: int, block: int,
        order: Array | None = None,
    ) -> None:  # fmt: skip
        self.units, self.width = depth, len(scale)
        self.type = TensorType(dtype, (depth, self.width))
        self._packed, self._bits, self._block, self._order = packed, bits, block, order
        self._scale, self._zero = np.asarray(scale, np.float32), np.asarray(zero, np.float32)

    def rows(self, first: int, stop: int) -> Array:
        begin, end = first // self._block, -(-stop // self._block)
        codes = self._unpacked(begin, end)[:, first - begin * self._block : stop - begin * self._block]
        k = np.arange(first, stop)
        part = k // self._block if self._order is None else self._order[first:stop]
        made = (codes - self._zero[:, part]) * self._scale[:, part]
        return np.ascontiguousarray(made.T).astype(self.type.dtype.numpy)

    def _unpacked(self, begin: int, end: int) -> Array:
        """Codes of some blocks, [N, k]."""
        stored = self._packed.array().reshape(self.width, -1, self._block * self._bits // 8)
        chosen = np.ascontiguousarray(stored[:, begin:end])
        if self._bits == 8:
            codes = chosen
        elif self._bits in _PACKED:
            shape = (self.width, end - begin, self._block)
            codes = unpack(chosen.reshape(-1), _PACKED[self._bits], shape).view(np.uint8)
        else:
            codes = unpack_bits(chosen, self._bits)
        return codes.reshape(self.width, -1).astype(np.float32)


class ViewPayload:
    """The bytes of another constant under another type that takes as many."""

    def __init__(self, source: Constant, type: TensorType) -> None:
        self.source, self.type = source, type

    def array(self) -> Array:
        shape = self.type.static_shape
        assert shape is not None
        if self.type.dtype is self.source.dtype:
            return self.source.array().reshape(shape)
        return unpack(self.source.array().reshape(-1).view(np.uint8), self.type.dtype, shape)

    def raw(self, start: int, stop: int) -> Array:
        width = max(1, self.source.dtype.bits // 8)
        lanes = 8 // min(8, self.source.dtype.bits)
        first, last = start // width * lanes, -(-stop // width) * lanes
        from ....ir.constants import pack

        found = np.frombuffer(pack(self.source.flat(first, last), self.source.dtype), np.uint8)
        return found[start - start // width * width :][: stop - start]


class TransposedPayload:
    """Another constant with its axes in another order."""

    def __init__(self, source: Constant, order: tuple[int, ...]) -> None:
        self._source, self._order = source, order
        self.type = TensorType(source.dtype, tuple(source.shape[i] for i in order))

    def array(self) -> Array:
        return np.ascontiguousarray(self._source.array().transpose(self._order))


def viewed(source: Constant, dtype: DType, shape: tuple[int, ...]) -> Constant:
    """The bytes of a constant as elements of `dtype` in `shape`."""
    type_ = TensorType(dtype, shape)
    return source if type_ == source.type else Constant(type_, ViewPayload(source, type_), source.origin)
