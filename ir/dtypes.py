"""Element types: one table that relates a type's short name, bits and kind to ONNX and numpy."""

from __future__ import annotations

import enum
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np


class DType(enum.Enum):
    """Every element type of ONNX up to IR 13. Value: (short name, ONNX code, bits, kind, numpy type).

    Kinds: `float`, `int` (signed), `uint`, `bool`, `complex`, `str`. Sub-byte types unpack to the numpy
    types of ml_dtypes, one element a byte; `bits` is their width in a file.
    """

    F32 = ("f32", 1, 32, "float", np.float32)
    U8 = ("u8", 2, 8, "uint", np.uint8)
    I8 = ("i8", 3, 8, "int", np.int8)
    U16 = ("u16", 4, 16, "uint", np.uint16)
    I16 = ("i16", 5, 16, "int", np.int16)
    I32 = ("i32", 6, 32, "int", np.int32)
    I64 = ("i64", 7, 64, "int", np.int64)
    STR = ("str", 8, 0, "str", np.object_)
    BOOL = ("bool", 9, 8, "bool", np.bool_)
    F16 = ("f16", 10, 16, "float", np.float16)
    F64 = ("f64", 11, 64, "float", np.float64)
    U32 = ("u32", 12, 32, "uint", np.uint32)
    U64 = ("u64", 13, 64, "uint", np.uint64)
    C64 = ("c64", 14, 64, "complex", np.complex64)
    C128 = ("c128", 15, 128, "complex", np.complex128)
    BF16 = ("bf16", 16, 16, "float", ml_dtypes.bfloat16)
    F8E4M3FN = ("f8e4m3fn", 17, 8, "float", ml_dtypes.float8_e4m3fn)
    F8E4M3FNUZ = ("f8e4m3fnuz", 18, 8, "float", ml_dtypes.float8_e4m3fnuz)
    F8E5M2 = ("f8e5m2", 19, 8, "float", ml_dtypes.float8_e5m2)
    F8E5M2FNUZ = ("f8e5m2fnuz", 20, 8, "float", ml_dtypes.float8_e5m2fnuz)
    U4 = ("u4", 21, 4, "uint", ml_dtypes.uint4)
    I4 = ("i4", 22, 4, "int", ml_dtypes.int4)
    F4E2M1 = ("f4e2m1", 23, 4, "float", ml_dtypes.float4_e2m1fn)
    F8E8M0 = ("f8e8m0", 24, 8, "float", ml_dtypes.float8_e8m0fnu)
    U2 = ("u2", 25, 2, "uint", ml_dtypes.uint2)
    I2 = ("i2", 26, 2, "int", ml_dtypes.int2)

    @property
    def short(self) -> str:
        return str(self.value[0])

    @property
    def onnx(self) -> int:
        """The code of `onnx.TensorProto.DataType`."""
        return int(self.value[1])

    @property
    def bits(self) -> int:
        """Bits of one element in a file; 0 for strings, whose elements differ in length."""
        return int(self.value[2])

    @property
    def kind(self) -> str:
        return str(self.value[3])

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self.value[4])
        return found

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    def nbytes(self, elements: int) -> int:
        """Bytes that `elements` elements take in a file (sub-byte types are packed)."""
        return (elements * self.bits + 7) // 8

    def __repr__(self) -> str:
        return self.short


BY_SHORT = {d.short: d for d in DType}
BY_ONNX = {d.onnx: d for d in DType}
_BY_NUMPY = {d.numpy: d for d in DType}


def of_numpy(dtype: np.dtype[Any]) -> DType:
    """The element type of a numpy array; text arrays of any width are `str`."""
    if dtype.kind in "US":
        return DType.STR
    return _BY_NUMPY[dtype]
