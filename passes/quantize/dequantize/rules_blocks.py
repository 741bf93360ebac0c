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


def _stored(work: Work, op: Op) -> Why | None:
    """Cast(codes) * scale, or (Cast(codes) - zero) * scale: codes that are widened when the model is loaded."""
    for widened, scale in (op.operands[:2], op.operands[1::-1]):
        parts = _cast_codes(widened)
        numbers = parameter(scale)
        if parts is None or numbers is None or scale is None:
            continue
        codes, zero = parts
        constant = codes_behind(codes)
        assert constant is not None
        dtype = dtype_of(op.result)
        payload = _broadcast(constant, numbers, zero, dtype) if dtype is not None else None
        if payload is None:
            return None
        floats = work.rw.constant(Constant(payload.type, payload, constant.origin), float_name(codes))
        work.report(op, f"{floats.type}", codes.name, f"{codes.type} behind a Cast")
        work.rw.replace(op, [floats])
        _reshape(work, floats)
        return None
    return None


def _cast_codes(value: Value | None) -> tuple[Value, Array | None] | None:
    """(constant codes, zero points) that a Cast, and perhaps a Sub, widens."""
    if value is None or value.op is None:
        return None
    if value.op.kind == "Sub":
        inner, zero = _cast_codes(value.op.operand(0)), parameter(value.op.operand(1))
        return None if inner is None or inner[1] is not None or zero is None else (inner[0], zero)
    codes = value.op.operand(0)
    if value.op.kind != "Cast" or codes is None or codes_behind(codes) is None:
        return None
    kind = dtype_of(codes)
    return (codes, None) if kind is not None and kind.is_integer and kind.bits <= 8 else None


def _broadcast(codes: Constant, scale: Array, zero: Array | None, dtype: DType) -> DequantizedPayload | None:
    """Codes times scales that broadcast to them along one axis, or along all but one (which holds the block)."""
    shape = (1,) * (len(codes.shape) - scale.ndim) + scale.shape
    if zero is not None:
        if zero.size > 1 and (1,) * (len(codes.shape) - zero.ndim) + zero.shape != shape:
            return None
        if np.any(zero != np.rint(zero)) or np.abs(zero).max(initial=0) > 1 << 24:
            return None
        zero = np.broadcast_to(zero.astype(np.int32).reshape(-1), (scale.size,)) if zero.size == 1 else zero.reshape(-1)
    if len(shape) != len(codes.shape) or any(s not in (1, n) for s, n in zip(shape, codes.shape)):
        return None
    several = [i for i, s in enumerate(shape) if s > 1]
    single = [i for i, (s, n) in enumerate(zip(shape, codes.shape)) if s == 1 and n > 1]
    if not several:
        return DequantizedPayload(codes, scale.reshape(()), None if zero is None else zero.reshape(-1)[:1], dtype)
    if len(several) == 1:
        return DequantizedPayload(codes, scale.reshape(-1), zero, dtype, several[0])
    if len(single) == 1:
        return DequantizedPayload(codes, scale.reshape(shape), zero, dtype, single[0], codes.shape[single[0]])
    return None


def _reshape(work: Work, floats: Value) -> None:
    """Blocks are an axis of their own there, which a Reshape joins again: done at once."""
    constant = floats.constant
    assert constant is not None
    for op in floats.users:
        found = getattr(op.result.type, "static_shape", None) if op.kind == "Reshape" else None
        if found is not None and op.operand(0) is floats:
            whole = work.rw.constant(viewed(constant, constant.dtype, found), f"{floats.name}_weight")
            work.rw.replace(op, [whole])


RULES: dict[str, Rule] = {
    f"{_MS}MatMulNBits": _matmul,
    f"{_MS}GatherBlockQuantized": _gather,
    "Mul": _stored,
}
