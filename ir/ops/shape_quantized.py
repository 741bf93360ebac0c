"""Types of ONNX's quantization operators and of the quantized elementwise operators of com.microsoft."""

from __future__ import annotations

from ..core import Op
from ..dtypes import BY_ONNX, DType
from ..types import TensorType
from .access import attr_int, dtype, shape
from .opdef import Infer, Inferred
from .shape_elementwise import broadcast_shapes


def quantize(op: Op) -> list[Inferred]:
    """u8 unless the zero point or `output_dtype` says otherwise."""
    element = BY_ONNX.get(attr_int(op, "output_dtype"), DType.U8)
    if op.operand(2) is not None:
        element = dtype(op, 2)
    return [Inferred(TensorType(element, shape(op)))]


def dequantize(op: Op) -> list[Inferred]:
    element = BY_ONNX.get(attr_int(op, "output_dtype"), dtype(op, 1))
    return [Inferred(TensorType(element, shape(op)))]


def dynamic_quantize(op: Op) -> list[Inferred]:
    scale, zero = TensorType(DType.F32, ()), TensorType(DType.U8, ())
    return [Inferred(TensorType(DType.U8, shape(op))), Inferred(scale), Inferred(zero)]


def qlinear_like(zero_point: int) -> Infer:
    """A unary quantized operator: the shape of operand 0, the element type of the result's zero point."""

    def infer(op: Op) -> list[Inferred]:
        given = op.operand(zero_point)
        return [Inferred(TensorType(dtype(op) if given is None else dtype(op, zero_point), shape(op)))]

    return infer


def qlinear_binary(op: Op) -> list[Inferred]:
    """QLinearAdd, QLinearMul: operands 0 and 3 broadcast."""
    return [Inferred(TensorType(dtype(op), broadcast_shapes(op, (shape(op), shape(op, 3)))))]
