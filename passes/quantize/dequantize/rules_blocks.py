"""Weights in narrow codes: MatMulNBits and GatherBlockQuantized become MatMul and Gather of floats."""

from __future__ import annotations

import numpy as np

from ....ir.constants import Constant
from ....ir.core import Op, Value
from ....ir.dtypes import DType
from ....ir.ops.access import attr_int
from ....ir.ops.reference_contrib import unpack_bits
from ...base import SkipCode
from .grids import Array, codes_behind, dtype_of, parameter
from .payloads import DequantizedPayload, NBitsPayload, viewed
from .work import Rule, Why, Work, float_name

_MS = "com.microsoft::"
_PACKED = {2: DType.U2, 4: DType.U4, 8: DType.U8}


def _matmul(work: Work, op: Op) -> Why | None:
    packed, scales = codes_behind(op.operand(1)), parameter(op.operand(2))
    source, codes, bias = op.operand(0), op.operand(1), op.operand(5)
    if packed is None or scales is None or source is None or codes is None:
        return Why(SkipCode.NOT_CONSTANT, "its weight is computed")
    dtype = dtype_of(source)
    assert dtype is not None
    depth, width, bits, block = (attr_int(op, name) for name in ("K", "N", "bits", "block_size"))
    bits = bits or 4
    blocks = -(-depth // block)
    zero, order = _zero_points(op.operand(3), (width, blocks), bits), None
    if zero is None:
        return Why(SkipCode.NOT_CONSTANT, "its zero points are computed")
    if op.operand(4) is not None:
        order = parameter(op.operand(4))
        if order is None:
            return Why(SkipCode.NOT_CONSTANT, "the order of its columns is computed")
    payload = NBitsPayload(packed, scales.reshape(width, blocks), zero, dtype, depth, bits, block, order)
    weight = work.rw.constant(Constant(payload.type, payload, packed.origin), float_name(codes))
    made = work.new("MatMul", [source, weight], op)
    if bias is not None:
        made = work.new("Add", [made, bias], op)
    work.replace(op, made, "MatMul" if bias is None else "MatMul + Add")
    return None


def _zero_points(value: Value | None, shape: tuple[int, int], bits: int) -> Array | None:
    """[N, blocks]: packed codes in whole bytes a row, numbers, or the middle of the range."""
    if value is None:
        return np.full(shape, 1 << (bits - 1), np.float32)
    given = parameter(value)
    if given is None:
        return None
    if given.dtype != np.uint8:
        return given.astype(np.float32).reshape(shape)
    codes: Array = unpack_bits(given.reshape(shape[0], -1), bits)[:, : shape[1]]
    return codes.astype(np.float32)


def _gather(work: Work, op: Op) -> Why | None:
    data, scales, codes = codes_behind(op.operand(0)), parameter(op.operand(2)), op.operand(0)
    if data is None or scales is None or codes is None:
        return Why(SkipCode.NOT_CONSTANT, "its table is computed")
    bits, block = attr_int(op, "bits", 4), attr_int(op, "block_size", 128)
    zero = parameter(op.operand(3))
    if zero is None and op.operand(3) is not None:
        return Why(SkipCode.NOT_CONSTANT, "its zero points are computed")
    if data.dtype is DType.U8:
        if bits not in _PACKED:
            return Why(SkipCode.UNSUPPORTED, f"tables of {bits} bits are not known")
        data = viewed(data, _PACKED[bits], (*data.shape[:-1], data.shape[-1] * 8 // bits))
        zero = _table_zeros(zero, scales, bits)
    axis = attr_int(op, "quantize_axis", 1) % len(data.shape)
    dtype = dtype_of(op.result)
    assert dtype is not None
    payload = DequantizedPayload(data, scales, zero, dtype, axis, block)
    table = work.rw.constant(Constant(payload.type, payload, data.origin), float_name(codes))
    made = work.new("Gather", [table, op.operand(1)], op, {"axis": attr_int(op, "gather_axis")})
    work.replace(op, made, "Gather")
    return None


def _table_zeros(zero: Array | None, scales: Array, bits: int) -> Array:
    if zero is None:
        return np.full(scales.shape, 1 << (bits - 1), np.int32)
    codes: Array = unpack_bits(zero, bits)[..., : scales.shape[-1]]
    return codes.reshape(scales.shape)


RULES: dict[str, Rule] = {
    f"{_MS}MatMulNBits": _matmul,
    f"{_MS}GatherBlockQuantized": _gather,
}
