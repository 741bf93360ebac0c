"""8-bit units to ONNX Runtime's kernels: products from codes with float results, rows of tables, padding of codes.

    QuantizeLinear, DequantizeLinear, MatMul (Gemm), Add     MatMulIntegerToFloat with its bias
    DynamicQuantizeLinear, DequantizeLinear, MatMul, Add     DynamicQuantizeMatMul with its bias
    Gather (Slice) of a table with a scale per row           Gather of codes and of scales, Mul
    DequantizeLinear, Pad, QuantizeLinear                    Pad of codes by the zero point

Convolutions and what lies between them stay in standard ONNX: the runtime fuses them to QLinearConv and its kin at
load. It has no fusion for the others, or one that leaves the bias to an op of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..ir.constants import Constant
from ..ir.core import Op, Value
from ..ir.dtypes import DType
from ..ir.ops.access import attr_float, attr_int, attr_text
from ..ir.rewrite import Rewriter
from ..ir.rows import sliced_rows
from ..ir.types import TensorType

_MS = "com.microsoft::"
_BYTES = (DType.U8, DType.I8)
Array = np.ndarray[Any, Any]


class Work(Protocol):
    """What a rule needs of the lowering it belongs to (backends/legalize.py)."""

    @property
    def rw(self) -> Rewriter: ...

    def done(self, op: Op, kernel: str) -> None: ...


@dataclass(frozen=True)
class _Dequantized:
    """A value in 8-bit codes behind a DequantizeLinear, possibly transposed on the way to its reader."""

    op: Op
    codes: Value
    scale: Value
    zero: Value | None
    axis: int | None  # of the scales, as the codes lie; None: one scale
    transposed: bool

    @property
    def dtype(self) -> DType:
        assert isinstance(self.codes.type, TensorType)
        return self.codes.type.dtype

    @property
    def seen_axis(self) -> int | None:
        """The axis of the scales of a matrix, as the reader sees it."""
        return 1 - self.axis if self.axis is not None and self.transposed else self.axis


def _dequantized(value: Value | None) -> _Dequantized | None:
    transposed = False
    while value is not None and value.op is not None and value.op.kind == "Transpose":
        if not isinstance(value.type, TensorType) or value.type.rank != 2:
            return None
        transposed ^= value.op.attrs.get("perm", (1, 0)) == (1, 0)
        value = value.op.operand(0)
    op = value.op if value is not None else None
    if op is None or op.kind != "DequantizeLinear" or op.attrs.get("block_size", 0):
        return None
    codes, scale, zero = (op.operand(slot) for slot in range(3))
    if codes is None or scale is None or not isinstance(codes.type, TensorType) or codes.type.dtype not in _BYTES:
        return None
    if not isinstance(scale.type, TensorType) or scale.type.dtype is not DType.F32:
        return None
    axis = attr_int(op, "axis", 1) % codes.type.rank if scale.type.rank else None
    return _Dequantized(op, codes, scale, zero, axis, transposed)


# -- products ----------------------------------------------------------------------------------------------------------


def _matmul(work: Work, op: Op) -> bool:
    a, b = _dequantized(op.operand(0)), _dequantized(op.operand(1))
    if not _multiplies(a, b) or not isinstance(op.result.type, TensorType):
        return False
    assert a is not None
    assert b is not None
    addition = _bias_addition(op, b)
    value, kernel = _product(work, op, a, b, None if addition is None else addition[1])
    if addition is not None:
        work.rw.replace(addition[0], [value])
        work.rw.erase(op)
    else:
        work.rw.replace(op, [value])
    work.done(op, kernel)
    return True


def _gemm(work: Work, op: Op) -> bool:
    a, b = _dequantized(op.operand(0)), _dequantized(op.operand(1))
    factors = attr_float(op, "alpha", 1.0), attr_float(op, "beta", 1.0)
    if attr_int(op, "transA") or factors != (1.0, 1.0):
        return False
    if b is not None and attr_int(op, "transB"):
        b = _Dequantized(b.op, b.codes, b.scale, b.zero, b.axis, not b.transposed)
    if not _multiplies(a, b):
        return False
    assert a is not None
    assert b is not None
    c = op.operand(2)
    bias = _vector(work.rw, c, _width(b)) if c is not None else None
    value, kernel = _product(work, op, a, b, bias)
    if c is not None and bias is None:
        value = work.rw.insert("Add", [value, c], before=op).result
    work.rw.replace(op, [value])
    work.done(op, kernel)
    return True


def _multiplies(a: _Dequantized | None, b: _Dequantized | None) -> bool:
    """Whether the kernels take the two: unsigned data with one scale, a constant matrix with one a column."""
    if a is None or b is None or a.axis is not None or a.transposed or a.dtype is not DType.U8:
        return False
    return b.codes.constant is not None and b.codes.constant.type.rank == 2 and b.seen_axis in (None, 1)


def _width(b: _Dequantized) -> int:
    assert b.codes.constant is not None
    return b.codes.constant.shape[0 if b.transposed else 1]


def _product(work: Work, op: Op, a: _Dequantized, b: _Dequantized, bias: Value | None) -> tuple[Value, str]:
    matrix = _matrix(work, b, op)
    found = a.codes.op
    operands: list[Value | None]
    result = [op.result.type]
    if found is not None and found.kind == "DynamicQuantizeLinear" and _alone(a, op):
        source = found.operand(0)
        operands = [source, matrix, b.scale, b.zero, bias]
        kernel = "DynamicQuantizeMatMul"
    else:
        operands = [a.codes, matrix, a.scale, b.scale, a.zero, b.zero, bias]
        kernel = "MatMulIntegerToFloat"
    while operands[-1] is None:
        operands.pop()
    return work.rw.insert(f"{_MS}{kernel}", operands, before=op, results=result).result, kernel


def _alone(a: _Dequantized, op: Op) -> bool:
    """Whether nothing else reads codes that are found on the run: else they are found once, for all."""
    return a.op.result.users == (op,) and a.codes.users == (a.op,)


def _matrix(work: Work, b: _Dequantized, before: Op) -> Value:
    """The codes as [depth, width]."""
    if not b.transposed:
        return b.codes
    if b.codes.users != (b.op,):  # a table that is also looked up: turned when the model is loaded, not stored twice
        return work.rw.insert("Transpose", [b.codes], before=before, origin=b.op).result
    assert b.codes.constant is not None
    turned = _Turned(b.codes.constant)
    return work.rw.constant(Constant(turned.type, turned, b.codes.constant.origin), f"{b.codes.name}_transposed")


class _Turned:
    """A matrix transposed when it is read."""

    def __init__(self, source: Constant) -> None:
        self._source = source
        self.type = TensorType(source.dtype, source.shape[::-1])

    def array(self) -> Array:
        return np.ascontiguousarray(self._source.array().T)


def _bias_addition(op: Op, b: _Dequantized) -> tuple[Op, Value] | None:
    """The Add of a vector that is the only reader of a product, and the vector."""
    users = op.result.users
    if len(users) != 1 or users[0].kind != "Add" or len(op.result.uses) != 1 or users[0].parent is not op.parent:
        return None
    addition = users[0]
    other = next(v for v in addition.operands if v is not op.result)
    if other is None or other.constant is None or other.constant.dtype is not DType.F32:
        return None
    fits = other.constant.type.rank == 1 and other.constant.elements == _width(b)
    return (addition, other) if fits else None


def _vector(rw: Rewriter, bias: Value, width: int) -> Value | None:
    """A bias as the kernels take it; None if it is none."""
    constant = bias.constant
    if constant is None or constant.dtype is not DType.F32 or constant.elements not in (1, width):
        return None
    if constant.shape == (width,):
        return bias
    return rw.constant(np.broadcast_to(constant.array().reshape(-1), (width,)).copy(), f"{bias.name}_row")


# -- rows of tables ----------------------------------------------------------------------------------------------------


def _gather(work: Work, op: Op) -> bool:
    table = _dequantized(op.operand(0))
    if table is None or not _holds_rows(table) or attr_int(op, "axis") not in (0, -_rank(table)):
        return False
    return _look_up(work, op, table)


def _slice(work: Work, op: Op) -> bool:
    table = _dequantized(op.operand(0))
    return table is not None and _holds_rows(table) and sliced_rows(op) is not None and _look_up(work, op, table)


def _holds_rows(table: _Dequantized) -> bool:
    constants = table.codes.constant is not None and table.scale.constant is not None
    return constants and table.zero is None and table.axis == 0 and not table.transposed


def _rank(table: _Dequantized) -> int:
    assert isinstance(table.codes.type, TensorType)
    return table.codes.type.rank


def _look_up(work: Work, op: Op, table: _Dequantized) -> bool:
    """Rows of codes and their scales: what is not read is not widened."""
    rw, scale = work.rw, table.scale.constant
    assert scale is not None
    column = scale.array().reshape(-1, *([1] * (_rank(table) - 1)))
    rows = [
        rw.insert(op.kind, [source, *op.operands[1:]], op.attrs, before=op, origin=op).result
        for source in (table.codes, rw.constant(column, f"{table.scale.name}_column"))
    ]
    steps = rw.insert("Cast", [rows[0]], {"to": DType.F32.onnx}, before=op, origin=op).result
    made = rw.insert("Mul", [steps, rows[1]], before=op, origin=op, results=[op.result.type])
    rw.replace(op, [made.result])
    work.done(op, f"{op.kind} of codes + Mul")
    return True


# -- padding -----------------------------------------------------------------------------------------------------------


def _pad(work: Work, op: Op) -> bool:
    """Pad between a DequantizeLinear and QuantizeLinears on its grid: codes are padded, zeros by the code of zero."""
    data = _dequantized(op.operand(0))
    readers = op.result.users
    if data is None or data.axis is not None or data.transposed or not readers:
        return False
    if not all(user.kind == "QuantizeLinear" and _same_grid(data, user) for user in readers):
        return False
    filler = op.operand(2)
    if filler is not None and (filler.constant is None or filler.constant.array().any()):
        return False
    zero = data.zero if attr_text(op, "mode", "constant") == "constant" else None
    operands = [data.codes, op.operand(1), zero, op.operand(3)]
    while operands[-1] is None:
        operands.pop()
    made = work.rw.insert("Pad", operands, op.attrs, before=op, origin=op)
    for user in readers:
        work.rw.replace(user, [made.result])
    work.done(op, "Pad of codes")
    return True


def _same_grid(data: _Dequantized, quantize: Op) -> bool:
    pairs = ((data.scale, quantize.operand(1)), (data.zero, quantize.operand(2)))
    return all(a is b or (a is not None and b is not None and _equal(a, b)) for a, b in pairs)


def _equal(a: Value, b: Value) -> bool:
    if a.constant is None or b.constant is None:
        return False
    return a.constant.type == b.constant.type and bool(np.array_equal(a.constant.array(), b.constant.array()))


RULES: Mapping[str, Callable[[Work, Op], bool]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "Slice": _slice,
    "Pad": _pad,
}
