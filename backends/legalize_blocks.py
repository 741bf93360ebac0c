"""4-bit weights in the layout of MatMulNBits: one row per output column, whole blocks, low bits first.

The new layout is computed from the old one whenever it is read (when the artifact is written), so that lowering a
model costs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.constants import Constant
from ..ir.core import Op, Value
from ..ir.dtypes import DType
from ..ir.quant_blocks import write_codes
from ..ir.types import TensorType

Array = np.ndarray[Any, Any]
#: Metadata of a DequantizeLinear: `stored` where its codes are to be widened although there is a kernel for them.
FORM = "mlc.form"


@dataclass(frozen=True)
class BlockedWeight:
    """A matrix that a DequantizeLinear makes from constants in blocks; `transposed` as its reader sees it.

    `depth` and `width` are the sizes of the axis with the blocks and of the other one; `rows_hold_blocks` says
    whether the codes lie block after block in memory (the blocked axis is the last).
    """

    op: Op
    codes: Constant
    scale: Constant
    scale_value: Value
    zero: Constant | None
    axis: int
    block: int
    transposed: bool

    @property
    def bits(self) -> int:
        return self.codes.dtype.bits

    @property
    def depth(self) -> int:
        return self.codes.shape[self.axis]

    @property
    def width(self) -> int:
        return self.codes.shape[1 - self.axis]

    @property
    def blocks(self) -> int:
        return -(-self.depth // self.block)

    @property
    def seen_axis(self) -> int:
        """The blocked axis, as the reader sees the matrix."""
        return 1 - self.axis if self.transposed else self.axis

    @property
    def dtype(self) -> DType:
        made = self.op.result.type
        assert isinstance(made, TensorType)
        return made.dtype


def blocked_weight(value: Value | None) -> BlockedWeight | None:
    """What a value is, if it is a matrix of 2, 4 or 8 bit codes in blocks behind a DequantizeLinear."""
    transposed = False
    while value is not None and value.op is not None and value.op.kind == "Transpose":
        swaps = value.op.attrs.get("perm", (1, 0)) == (1, 0)
        value, transposed = value.op.operand(0), transposed != swaps
    op = value.op if value is not None else None
    if op is None or op.kind != "DequantizeLinear" or not op.attrs.get("block_size", 0):
        return None
    if op.meta.get(FORM) == "stored":
        return None
    codes, scale, zero = (op.operand(i) for i in range(3))
    scale_constant = _behind_cast(scale)
    if codes is None or codes.constant is None or scale is None or scale_constant is None:
        return None
    if zero is not None and zero.constant is None:
        return None
    constant = codes.constant
    if constant.type.rank != 2 or constant.dtype.bits not in (2, 4, 8) or not constant.dtype.is_integer:
        return None
    axis, block = op.attrs.get("axis", 1), op.attrs["block_size"]
    assert isinstance(axis, int)
    assert isinstance(block, int)
    zeros = zero.constant if zero is not None else None
    return BlockedWeight(op, constant, scale_constant, scale, zeros, axis % 2, block, transposed)


def _behind_cast(value: Value | None) -> Constant | None:
    if value is not None and value.op is not None and value.op.kind == "Cast":
        value = value.op.operand(0)
    return value.constant if value is not None else None


class BlockRows:
    """The codes of a weight as unsigned bytes [width, blocks, block * bits / 8]; short blocks are padded."""

    def __init__(self, weight: BlockedWeight) -> None:
        self._weight = weight

    @property
    def type(self) -> TensorType:
        w = self._weight
        return TensorType(DType.U8, (w.width, w.blocks, w.block * w.bits // 8))

    def array(self) -> Array:
        w = self._weight
        packed = np.zeros((w.width, w.blocks, w.block * w.bits // 8), np.uint8)
        if w.axis == 0:
            self._from_columns(packed)
        else:
            self._from_rows(packed)
        return packed

    def _from_columns(self, packed: Array) -> None:
        """Codes [depth, width]: one block of rows at a time."""
        w = self._weight
        for index in range(w.blocks):
            first = index * w.block
            count = min(w.block, w.depth - first)
            begin = first * w.width
            whole = begin - begin % 4
            codes = unsigned(w.codes.flat(whole, begin + count * w.width), w)[begin - whole :]
            block = np.full((w.width, w.block), _padding(w), np.uint8)
            block[:, :count] = codes.reshape(count, w.width).T
            target = np.zeros(w.width * packed.shape[2], np.uint8)
            write_codes(target, 0, block.reshape(-1), w.bits)
            packed[:, index] = target.reshape(w.width, -1)

    def _from_rows(self, packed: Array) -> None:
        """Codes [width, depth]: some rows at a time."""
        w = self._weight
        step = max(4, (1 << 20) // max(1, w.depth) // 4 * 4)
        for first in range(0, w.width, step):
            count = min(step, w.width - first)
            codes = unsigned(w.codes.flat(first * w.depth, (first + count) * w.depth), w)
            rows = np.full((count, w.blocks * w.block), _padding(w), np.uint8)
            rows[:, : w.depth] = codes.reshape(count, w.depth)
            target = np.zeros(count * w.blocks * packed.shape[2], np.uint8)
            write_codes(target, 0, rows.reshape(-1), w.bits)
            packed[first : first + count] = target.reshape(count, w.blocks, -1)


def _padding(weight: BlockedWeight) -> int:
    """Codes behind the end of a short block: the kernel multiplies them with zeros."""
    return 1 << (weight.bits - 1)


def unsigned(codes: Array, weight: BlockedWeight) -> Array:
    """Codes shifted to start at 0, as bytes."""
    if weight.codes.dtype.kind == "uint":
        return codes.astype(np.uint8)
    return (codes.astype(np.int16) + (1 << (weight.bits - 1))).astype(np.uint8)


def row_scales(weight: BlockedWeight) -> Array:
    """Scales [width, blocks]."""
    scale = weight.scale.array()
    return np.ascontiguousarray(scale.T) if weight.axis == 0 else scale


def row_zeros(weight: BlockedWeight) -> Array | None:
    """Packed zero points [width, bytes]; None where the kernel's default, the middle of the range, is meant."""
    if weight.zero is None:
        if weight.codes.dtype.kind == "int":
            return None
        codes = np.zeros((weight.width, weight.blocks), np.uint8)
    else:
        zero = unsigned(weight.zero.array(), weight)
        codes = zero.T if weight.axis == 0 else zero
        if (codes == 1 << (weight.bits - 1)).all():
            return None
    per_byte = 8 // weight.bits
    padded = np.zeros((weight.width, -(-weight.blocks // per_byte) * per_byte), np.uint8)
    padded[:, : weight.blocks] = codes
    packed = np.zeros(padded.size // per_byte, np.uint8)
    write_codes(packed, 0, padded.reshape(-1), weight.bits)
    return packed.reshape(weight.width, -1)
