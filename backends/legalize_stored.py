"""Codes that no kernel computes with: widened once, when the runtime loads the model.

ONNX Runtime runs a `DequantizeLinear` over constants again and again: it leaves it to be fused with its reader. Where
there is nothing to fuse with (Conv, LSTM, a matrix of rank 3, ...), the same numbers come from

    w = (Cast(codes) - Cast(zero)) * Cast(scale)

which its constant folding evaluates at load, in the bodies of If and Loop too. The file keeps its codes, the session
computes with floats, as fast as the model before. The numbers are those of DequantizeLinear bit for bit: differences
of codes are exact in float32, and both round the one product to the element type of the result.

What ONNX Runtime does fuse, the weights of a quantized unit (`fused_by_runtime`), stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..ir.constants import Constant
from ..ir.core import Op, Value
from ..ir.dtypes import DType
from ..ir.quant_blocks import write_codes
from ..ir.rewrite import Rewriter
from ..ir.types import TensorType

KERNEL = "Cast + Mul, folded at load: size only"
_CASTABLE = frozenset({DType.U4, DType.I4, DType.U8, DType.I8, DType.U16, DType.I16, DType.I32})
_PACKED = frozenset({DType.U2, DType.I2})  # ONNX Runtime knows them from opset 25 on: bytes reach further
_RESULTS = frozenset({DType.F32, DType.F16})
_PER_BYTE = 4
_CLAMPS = ("Relu", "Clip")


class Work(Protocol):
    """What a rule needs of the lowering it belongs to (backends/legalize.py)."""

    @property
    def rw(self) -> Rewriter: ...

    def done(self, op: Op, kernel: str) -> None: ...


# -- what the runtime fuses --------------------------------------------------------------------------------------------


def _is_codes(value: Value | None) -> bool:
    """Whether a value is dequantized from codes that are computed."""
    op = value.op if value is not None else None
    if op is None or op.kind != "DequantizeLinear":
        return False
    codes = op.operand(0)
    return codes is not None and codes.constant is None


def _is_quantized(value: Value) -> bool:
    """Whether everything that reads a value quantizes it, at most behind one clamp that the codes make redundant."""
    if len(value.users) == 1 and value.users[0].kind in _CLAMPS:
        value = value.users[0].result
    return bool(value.users) and all(user.kind == "QuantizeLinear" for user in value.users)


def _conv(op: Op) -> bool:
    return _is_codes(op.operand(0)) and _is_quantized(op.result)


def _gemm(op: Op) -> bool:
    bias = op.operand(2)
    quantized_bias = bias is None or (bias.op is not None and bias.op.kind == "DequantizeLinear")
    return _is_codes(op.operand(0)) and quantized_bias


def _matmul(op: Op) -> bool:
    return _is_codes(op.operand(0)) or _is_codes(op.operand(1))


def _elementwise(op: Op) -> bool:
    return any(_is_codes(v) for v in op.operands) and _is_quantized(op.result)


#: For each operator that ONNX Runtime has an 8-bit kernel for and that may read constants: when it uses it.
UNITS: Mapping[str, Callable[[Op], bool]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _elementwise,
    "Mul": _elementwise,
    "Concat": _elementwise,
    "Where": _elementwise,
}


def fused_by_runtime(op: Op) -> bool:
    """Whether ONNX Runtime computes an op that reads a DequantizeLinear from the codes."""
    if op.kind == "Transpose":  # of a weight: the runtime transposes the codes
        return bool(op.result.users) and all(fused_by_runtime(user) for user in op.result.users)
    unit = UNITS.get(op.kind)
    return op.domain == "com.microsoft" or (unit is not None and unit(op))


# -- the rule ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Codes:
    """A DequantizeLinear over constants."""

    op: Op
    codes: Value
    scale: Value
    zero: Value | None
    constant: Constant
    axis: int
    block: int

    @property
    def dtype(self) -> DType:
        made = self.op.result.type
        assert isinstance(made, TensorType)
        return made.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.constant.shape

    @property
    def short(self) -> bool:
        """Whether the last block is not whole."""
        return bool(self.block) and self.shape[self.axis] % self.block != 0

    @property
    def blocked_shape(self) -> tuple[int, ...]:
        """The shape of the codes with the blocks on an axis of their own, where all of them are whole."""
        if not self.block or self.short:
            return self.shape
        blocks = self.shape[self.axis] // self.block
        return (*self.shape[: self.axis], blocks, self.block, *self.shape[self.axis + 1 :])

    def beside(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which scales or zero points of `shape` stand beside the codes in `blocked_shape`."""
        if self.block:
            return shape if self.short else (*shape[: self.axis + 1], 1, *shape[self.axis + 1 :])
        if not shape or shape == (1,):
            return ()
        return tuple(n if i == self.axis else 1 for i, n in enumerate(self.shape))


def store(work: Work, op: Op) -> bool:
    """Let readers that the runtime does not fuse with a DequantizeLinear over constants read floats folded at load."""
    found = _found(op)
    if found is None:
        return False
    readers = {twin: [user for user in twin.result.users if not fused_by_runtime(user)] for twin in _twins(op)}
    if not any(readers.values()):
        return False
    widened = _widen(work.rw, found)
    for twin, users in readers.items():
        for user in users:
            work.done(twin if user.is_terminator else user, KERNEL)
        work.rw.replace_uses(twin.result, widened, only=users)
    return True


def _twins(op: Op) -> list[Op]:
    """The op and those of its graph that compute the same from the same constants: they are widened once."""
    codes = op.operand(0)
    assert codes is not None
    return [
        user
        for user in codes.users
        if user.kind == op.kind
        and user.parent is op.parent
        and user.operands == op.operands
        and user.attrs == op.attrs
        and user.result.type == op.result.type
    ]


def _found(op: Op) -> _Codes | None:
    codes, scale, zero = (op.operand(i) for i in range(3))
    result = op.result.type
    if codes is None or codes.constant is None or scale is None or not isinstance(result, TensorType):
        return None
    if _constant(scale) is None or (zero is not None and zero.constant is None):
        return None
    zeros = zero.constant if zero is not None else None
    constant = codes.constant
    if constant.dtype not in _CASTABLE | _PACKED or result.dtype not in _RESULTS:
        return None
    if constant.dtype is DType.I32 and zeros is not None and zeros.array().any():
        return None  # the difference would be rounded
    axis, block = op.attrs.get("axis", 1), op.attrs.get("block_size", 0)
    assert isinstance(axis, int)
    assert isinstance(block, int)
    return _Codes(op, codes, scale, zero, constant, axis % max(1, constant.type.rank), block)


def _constant(value: Value) -> Constant | None:
    """The float constant behind a value, at most one Cast to a wider type away."""
    wide = value.type
    if value.op is not None and value.op.kind == "Cast":
        inner = value.op.operand(0)
        value = inner if inner is not None else value
    constant = value.constant
    if constant is None or not isinstance(wide, TensorType) or constant.dtype not in _RESULTS:
        return None
    return constant if constant.dtype.bits <= wide.dtype.bits else None


def _widen(rw: Rewriter, found: _Codes) -> Value:
    """(codes - zero) * scale in float32, rounded once to the type of the result."""
    steps = _steps(rw, found)
    zero = _zeros(rw, found)
    if zero is not None:
        steps = _insert(rw, found, "Sub", [steps, zero])
    scale = _constant(found.scale)
    assert scale is not None
    value = _insert(rw, found, "Mul", [steps, _parameter(rw, found, scale, "stored_scale")])
    if found.blocked_shape != found.shape:
        value = _reshape(rw, found, value, found.shape)
    return value if found.dtype is DType.F32 else _cast(rw, found, value, found.dtype)


def _steps(rw: Rewriter, found: _Codes) -> Value:
    """The codes as float32, in `blocked_shape`."""
    if found.constant.dtype in _PACKED:
        return _unpacked(rw, found)
    value = _cast(rw, found, found.codes, DType.F32)
    return value if found.blocked_shape == found.shape else _reshape(rw, found, value, found.blocked_shape)


def _unpacked(rw: Rewriter, found: _Codes) -> Value:
    """2-bit codes from bytes, four in each, the first in the lowest bits: (byte >> [0, 2, 4, 6]) & 3."""
    count = found.constant.elements
    data = rw.constant(Constant(*_bytes(found.constant), found.constant.origin), f"{found.codes.name}_packed")
    shifts = rw.constant(np.arange(0, 8, 2, dtype=np.uint8), "shifts")
    value = _insert(rw, found, "BitShift", [data, shifts], {"direction": "RIGHT"})
    value = _insert(rw, found, "BitwiseAnd", [value, rw.constant(np.asarray(3, np.uint8), "low_bits")])
    if count % _PER_BYTE:
        value = _reshape(rw, found, value, (-1,))
        bounds = [rw.constant(np.array([n], np.int64), "bound") for n in (0, count)]
        value = _insert(rw, found, "Slice", [value, *bounds])
    value = _reshape(rw, found, value, found.blocked_shape)
    return _cast(rw, found, value, DType.F32)


class _Bytes:
    """2-bit codes, shifted to start at 0, as bytes [n / 4, 1]; made when they are read."""

    def __init__(self, codes: Constant) -> None:
        self._codes = codes

    def array(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        codes = self._codes
        packed = np.zeros(-(-codes.elements // _PER_BYTE), np.uint8)
        offset = 2 if codes.dtype is DType.I2 else 0
        write_codes(packed, 0, (codes.array().reshape(-1).astype(np.int8) + offset).astype(np.uint8), 2)
        return packed.reshape(-1, 1)


def _bytes(codes: Constant) -> tuple[TensorType, _Bytes]:
    return TensorType(DType.U8, (-(-codes.elements // _PER_BYTE), 1)), _Bytes(codes)


def _zeros(rw: Rewriter, found: _Codes) -> Value | None:
    """What is subtracted from the codes, as float32; None for nothing."""
    zero = found.zero.constant if found.zero is not None else None
    offset = 2 if found.constant.dtype is DType.I2 else 0  # bytes are unsigned
    if zero is None and not offset:
        return None
    if zero is None:
        return rw.constant(np.asarray(offset, np.float32), "offset")
    values = zero.array().astype(np.int32) + offset
    if not values.any():
        return None
    narrow = zero.dtype if zero.dtype not in _PACKED else DType.U8
    stored = Constant.of(values.astype(narrow.numpy), narrow)
    return _parameter(rw, found, stored, "stored_zero_point")


def _parameter(rw: Rewriter, found: _Codes, constant: Constant, suffix: str) -> Value:
    """Scales or zero points as float32 in a shape that broadcasts against the codes; narrow in the file."""
    shaped = Constant.of(constant.array().reshape(found.beside(constant.shape)), constant.dtype)
    value = rw.constant(shaped, f"{found.codes.name.removesuffix('_quantized')}_{suffix}")
    if constant.dtype is not DType.F32:
        value = _cast(rw, found, value, DType.F32)
    if found.short:
        rows = np.arange(found.shape[found.axis], dtype=np.int64) // found.block
        value = _insert(rw, found, "Gather", [value, rw.constant(rows, "block_of_row")], {"axis": found.axis})
    return value


def _cast(rw: Rewriter, found: _Codes, value: Value, dtype: DType) -> Value:
    return _insert(rw, found, "Cast", [value], {"to": dtype.onnx})


def _reshape(rw: Rewriter, found: _Codes, value: Value, shape: tuple[int, ...]) -> Value:
    return _insert(rw, found, "Reshape", [value, rw.constant(np.array(shape, np.int64), "shape")])


def _insert(
    rw: Rewriter, found: _Codes, kind: str, operands: Sequence[Value], attrs: Mapping[str, int | str] | None = None
) -> Value:
    return rw.insert(kind, operands, attrs, before=found.op, origin=found.op).result
