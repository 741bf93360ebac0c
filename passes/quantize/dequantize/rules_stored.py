"""Weights that a runtime widens when it loads the model: constant codes, a Cast, a zero point taken off, a scale.

w = (Cast(codes) - zero) * scale          also of rows that are looked up, and of codes that are unpacked first
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ....ir.constants import Constant
from ....ir.core import Attr, Graph, Module, Op, Value
from ....ir.dtypes import DType
from ....ir.evaluate import evaluate_op
from ....ir.types import TensorType
from .grids import Array, codes_behind, dtype_of, parameter
from .payloads import DequantizedPayload, viewed
from .work import Rule, Why, Work, float_name

_LOOKUPS = frozenset({"Gather", "Slice"})
#: Operators between packed codes, or parameters, and the product; all of them on constants.
_UNPACKING = frozenset(
    ("BitShift", "BitwiseAnd", "Cast", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Transpose")
)
_DEPTH = 12  # operators between codes and the product


def _stored(work: Work, op: Op) -> Why | None:
    for codes, scale in (op.operands[:2], op.operands[1::-1]):
        if (
            codes is not None
            and scale is not None
            and (_whole(work, op, codes, scale) or _rows(work, op, codes, scale))
        ):
            return None
    _unpacked(work, op)
    return None


def _whole(work: Work, op: Op, widened: Value, scale: Value) -> bool:
    """The product of whole constants."""
    parts, numbers = _widened(widened), parameter(scale)
    if parts is None or numbers is None:
        return False
    codes, zero, shape = parts
    constant, zeros = codes_behind(codes), None if zero is None else parameter(zero)
    if constant is not None and shape is not None:
        constant = viewed(constant, constant.dtype, shape)
    if constant is None or (zero is not None and zeros is None):
        return False
    floats = _product(constant, numbers, zeros, dtype_of(op.result))
    if floats is None:
        return False
    _replace(work, op, codes, floats)
    return True


def _rows(work: Work, op: Op, widened: Value, scale: Value) -> bool:
    """Rows of a table of codes, times the same rows of its scales."""
    parts = _widened(widened)
    look = parts[0].op if parts is not None else None
    if parts is None or look is None or look.kind not in _LOOKUPS or parts[2] is not None:
        return False
    codes, zero = look.operand(0), parts[1]
    constant = codes_behind(codes)
    numbers, zeros = _looked_up(scale, look), None if zero is None else _looked_up(zero, look)
    if codes is None or constant is None or numbers is None or (zero is not None and zeros is None):
        return False
    floats = _product(constant, numbers, zeros, dtype_of(op.result))
    if floats is None:
        return False
    table = work.rw.constant(floats, float_name(codes))
    work.replace(op, work.new(look.kind, [table, *look.operands[1:]], op, look.attrs), look.kind)
    return True


def _looked_up(value: Value, look: Op) -> Array | None:
    """The constant whose rows a value holds, if they are those that `look` takes; a number goes with every row."""
    number = parameter(value)
    if number is not None:
        return number if number.size == 1 else None
    op = value.op
    source = op.operand(0) if op is not None and op.kind == "Cast" else None
    op = source.op if source is not None else op
    if op is None or op.kind != look.kind or op.attrs != look.attrs or op.operands[1:] != look.operands[1:]:
        return None
    return parameter(op.operand(0))


def _widened(value: Value) -> tuple[Value, Value | None, tuple[int, ...] | None] | None:
    """(codes, zero points, shape) of a Cast of narrow integers to floats, perhaps with a Reshape and a Sub behind."""
    op = value.op
    if op is None:
        return None
    if op.kind == "Sub":
        first, zero = op.operands
        inner = _widened(first) if first is not None else None
        return None if inner is None or inner[1] is not None or zero is None else (inner[0], zero, inner[2])
    shape = None
    if op.kind == "Reshape" and isinstance(value.type, TensorType):
        shape, source = value.type.static_shape, op.operand(0)
        op = source.op if source is not None and shape is not None else None
    codes = op.operand(0) if op is not None and op.kind == "Cast" else None
    kind = dtype_of(codes) if codes is not None else None
    if codes is None or kind is None or not kind.is_integer or kind.bits > 8:
        return None
    return codes, None, shape


def _product(codes: Constant, scale: Array, zero: Array | None, dtype: DType | None) -> Constant | None:
    """Codes times scales that broadcast to them along one axis, or along all but one (which holds the block)."""
    shape = (1,) * (len(codes.shape) - scale.ndim) + scale.shape
    if dtype is None or len(shape) != len(codes.shape) or any(s not in (1, n) for s, n in zip(shape, codes.shape)):
        return None
    if zero is not None:
        if zero.size > 1 and (1,) * (len(codes.shape) - zero.ndim) + zero.shape != shape:
            return None
        if np.any(zero != np.rint(zero)) or np.abs(zero).max(initial=0) > 1 << 24:
            return None
        zero = np.broadcast_to(zero.astype(np.int32).reshape(-1), (scale.size,)) if zero.size == 1 else zero
    several = [i for i, s in enumerate(shape) if s > 1]
    single = [i for i, (s, n) in enumerate(zip(shape, codes.shape)) if s == 1 and n > 1]
    if not several:
        axis, block = None, 0
    elif len(several) == 1:
        axis, block = several[0], 0
    elif len(single) == 1:
        axis, block = single[0], codes.shape[single[0]]
    else:
        return None
    payload = DequantizedPayload(codes, scale, zero, dtype, axis, block)
    return Constant(payload.type, payload, codes.origin)


# -- anything else that is computed from codes and constants alone -----------------------------------------------------


class Computed:
    """The result of an operator on constants, computed whenever it is read."""

    def __init__(self, op: Op, constants: tuple[Constant | None, ...], opset: int) -> None:
        self._kind, self._attrs, self._constants, self._opset = op.kind, _copy(op.attrs), constants, opset

    def array(self) -> Array:
        module = Module(Graph(), opset=self._opset)
        operands = [None if c is None else module._add_constant(f"c{i}", c) for i, c in enumerate(self._constants)]
        op = Op(self._kind, operands, self._attrs, [Value(TensorType(DType.F32, ()), "y")])
        return evaluate_op(op, [None if c is None else c.array() for c in self._constants], module=module)[0]


def _copy(attrs: Mapping[str, Attr]) -> dict[str, Attr]:
    return dict(attrs)


def _unpacked(work: Work, op: Op) -> None:
    """Codes in blocks, or several in a byte."""
    codes: list[Value] = []
    floats = _computed(op.result, work.rw.module.opset, codes, _DEPTH)
    if floats is not None and codes and not isinstance(floats.payload, DequantizedPayload):
        _replace(work, op, codes[0], floats)


def _computed(value: Value, opset: int, codes: list[Value], depth: int) -> Constant | None:
    """What a value is, if it is computed from constants alone; collects constants of codes on the way."""
    if value.constant is not None:
        kind = value.constant.dtype
        if kind.is_integer and kind.bits <= 8 and value.constant.elements > 1:
            codes.append(value)
        return value.constant
    op = value.op
    shape = value.type.static_shape if isinstance(value.type, TensorType) else None
    if op is None or op.kind not in _UNPACKING or depth == 0 or shape is None:
        return None
    found = [None if v is None else _computed(v, opset, codes, depth - 1) for v in op.operands]
    if any(c is None and v is not None for c, v in zip(found, op.operands)):
        return None
    assert isinstance(value.type, TensorType)
    return Constant(value.type, Computed(op, tuple(found), opset), next(c.origin for c in found if c is not None))


def _replace(work: Work, op: Op, codes: Value, floats: Constant) -> None:
    value = work.rw.constant(floats, float_name(codes))
    work.report(op, f"{floats.type}", codes.name, f"{codes.type} behind a Cast")
    work.rw.replace(op, [value])
    _reshape(work, value)


def _reshape(work: Work, floats: Value) -> None:
    """Blocks are an axis of their own there, which a Reshape joins again: done at once."""
    constant = floats.constant
    assert constant is not None
    for op in floats.users:
        shape = op.result.type.static_shape if op.kind == "Reshape" and isinstance(op.result.type, TensorType) else None
        if shape is not None and op.operand(0) is floats:
            work.rw.replace(op, [work.rw.constant(viewed(constant, constant.dtype, shape), f"{floats.name}_weight")])


RULES: dict[str, Rule] = {"Mul": _stored}
