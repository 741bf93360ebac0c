"""Numpy references of ONNX Runtime's operators (domain com.microsoft): the formulas, not the kernels.

A kernel that computes with narrower activations (MatMulNBits at accuracy level 4) differs by its own rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Op
from .access import attr_float, attr_int
from .opdef import Reference

Array = np.ndarray[Any, Any]
Arrays = Sequence[Array | None]


def _given(arrays: Arrays, slot: int) -> Array | None:
    return arrays[slot] if slot < len(arrays) else None


def _need(arrays: Arrays, slot: int) -> Array:
    found = _given(arrays, slot)
    assert found is not None, f"operand {slot} is missing"
    return found


def as_onnx(kind: str) -> Reference:
    """The operator of the same name in ONNX's own domain."""

    def evaluate(op: Op, arrays: Arrays) -> list[Array]:
        from ..evaluate import evaluate_op

        return evaluate_op(Op(kind, [None] * len(arrays), op.attrs, _results(len(op.results))), arrays)

    return evaluate


def _results(count: int) -> list[Any]:
    from ..core import Value
    from ..dtypes import DType
    from ..types import UnrankedTensor

    return [Value(UnrankedTensor(DType.F32)) for _ in range(count)]


def unpack_bits(packed: Array, bits: int) -> Array:
    """Unsigned elements of `bits` bits from the bytes of the last axis, low bits first."""
    stream = np.unpackbits(np.ascontiguousarray(packed), axis=-1, bitorder="little")
    usable = stream.shape[-1] // bits * bits
    lanes = stream[..., :usable].reshape(*packed.shape[:-1], -1, bits)
    codes: Array = (lanes.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(-1, dtype=np.int32)
    return codes


def matmul_nbits(op: Op, arrays: Arrays) -> list[Array]:
    a, scales = _need(arrays, 0), _need(arrays, 2)
    bits, inner, columns = attr_int(op, "bits", 4), attr_int(op, "K"), attr_int(op, "N")
    codes = unpack_bits(_need(arrays, 1), bits)
    blocks = codes.shape[1]
    zero = _zero_points(_given(arrays, 3), (columns, blocks), bits)
    order = _given(arrays, 4)
    scales = scales.reshape(columns, blocks).astype(np.float32)
    if order is None:
        weight = ((codes - zero[..., None]) * scales[..., None]).reshape(columns, -1)[:, :inner]
    else:  # element k belongs to block order[k]
        flat = codes.reshape(columns, -1)[:, :inner]
        weight = (flat - zero[:, order[:inner]]) * scales[:, order[:inner]]
    result = a.astype(np.float32) @ weight.T.astype(np.float32)
    bias = _given(arrays, 5)
    return [(result if bias is None else result + bias).astype(a.dtype)]


def _zero_points(given: Array | None, shape: tuple[int, int], bits: int) -> Array:
    if given is None:
        return np.full(shape, 1 << (bits - 1), np.float32)
    if given.dtype != np.uint8:
        return given.reshape(shape).astype(np.float32)
    return unpack_bits(given.reshape(shape[0], -1), bits)[:, : shape[1]].astype(np.float32)


def gather_block_quantized(op: Op, arrays: Arrays) -> list[Array]:
    data, indices, scales, zero = _need(arrays, 0), _need(arrays, 1), _need(arrays, 2), _given(arrays, 3)
    bits = attr_int(op, "bits", 4)
    if data.dtype == np.uint8:
        data = unpack_bits(data, bits)
        default = 1 << (bits - 1)
        zero = None if zero is None else unpack_bits(zero, bits)[..., : scales.shape[-1]]
    else:
        default = 0
    axis = attr_int(op, "quantize_axis", 1) % data.ndim
    gather_axis = attr_int(op, "gather_axis") % data.ndim
    size = attr_int(op, "block_size", 128)
    offset = np.full(scales.shape, default, np.float32) if zero is None else zero.astype(np.float32)
    spread = [np.repeat(x.astype(np.float32), size, axis).take(range(data.shape[axis]), axis) for x in (scales, offset)]
    real = (data.astype(np.float32) - spread[1]) * spread[0]
    return [np.take(real, indices.astype(np.int64), gather_axis).astype(scales.dtype)]


def matmul_integer_to_float(op: Op, arrays: Arrays) -> list[Array]:
    """A, B, scale of A, scale of B, zero of A, zero of B, bias."""
    a, b = (_shifted(_need(arrays, i), _given(arrays, i + 4)) for i in range(2))
    result = (a @ b).astype(np.float32) * _need(arrays, 2) * _need(arrays, 3)
    bias = _given(arrays, 6)
    return [(result if bias is None else result + bias).astype(_need(arrays, 2).dtype)]


def dynamic_quantize_matmul(op: Op, arrays: Arrays) -> list[Array]:
    """A is quantized to u8 over its range, B is stored quantized: A, B, scale of B, zero of B, bias."""
    from ..evaluate import evaluate_op

    a = _need(arrays, 0)
    codes, scale, zero = evaluate_op(Op("DynamicQuantizeLinear", [None], {}, _results(3)), [a])
    b = _shifted(_need(arrays, 1), _given(arrays, 3))
    result = (_shifted(codes, zero) @ b).astype(np.float32) * scale * _need(arrays, 2)
    bias = _given(arrays, 4)
    return [(result if bias is None else result + bias).astype(a.dtype)]


def _shifted(codes: Array, zero: Array | None) -> Array:
    wide = codes.astype(np.int32)
    return wide if zero is None else wide - zero.astype(np.int32)


# -- fused float operators ---------------------------------------------------------------------------------------------


def gelu(op: Op, arrays: Arrays) -> list[Array]:
    x = _biased(arrays)
    exact = _erf(x / np.sqrt(np.float32(2)))
    return [(0.5 * x * (1 + exact)).astype(x.dtype)]


def _erf(x: Array) -> Array:
    from ..evaluate import evaluate_op

    return evaluate_op(Op("Erf", [None], {}, _results(1)), [x])[0]


def fast_gelu(op: Op, arrays: Arrays) -> list[Array]:
    x = _biased(arrays)
    return [(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))).astype(x.dtype)]


def quick_gelu(op: Op, arrays: Arrays) -> list[Array]:
    x = _need(arrays, 0)
    return [(x / (1 + np.exp(-attr_float(op, "alpha", 1.702) * x))).astype(x.dtype)]


def _biased(arrays: Arrays) -> Array:
    x, bias = _need(arrays, 0), _given(arrays, 1)
    return x if bias is None else x + bias


def fused_matmul(op: Op, arrays: Arrays) -> list[Array]:
    factors = []
    for slot, side in enumerate("AB"):
        x = _need(arrays, slot)
        if attr_int(op, f"transBatch{side}"):
            x = np.moveaxis(x, 0, -2)
        factors.append(np.swapaxes(x, -1, -2) if attr_int(op, f"trans{side}") and x.ndim > 1 else x)
    result = factors[0] @ factors[1]
    return [(result * np.float32(attr_float(op, "alpha", 1.0))).astype(result.dtype)]


def rms_norm(op: Op, arrays: Arrays) -> list[Array]:
    x, scale = _need(arrays, 0), _need(arrays, 1)
    first = attr_int(op, "axis", -1) % x.ndim
    axes = tuple(range(first, x.ndim))
    result, _, inverse = _normalised(x, scale, None, axes, attr_float(op, "epsilon", 1e-5), centre=False)
    return [result, inverse][: len(op.results)]


def skip_layer_norm(op: Op, arrays: Arrays) -> list[Array]:
    """Input, skip, gamma, beta, bias."""
    total = _skipped(arrays, 4)
    normed = _normalised(total, _need(arrays, 2), _given(arrays, 3), (-1,), attr_float(op, "epsilon", 1e-12))
    return [*normed, total][: len(op.results)]


def skip_rms_norm(op: Op, arrays: Arrays) -> list[Array]:
    """Input, skip, gamma, bias."""
    total = _skipped(arrays, 3)
    epsilon = attr_float(op, "epsilon", 1e-12)
    normed = _normalised(total, _need(arrays, 2), None, (-1,), epsilon, centre=False)
    return [*normed, total][: len(op.results)]


def _skipped(arrays: Arrays, bias_slot: int) -> Array:
    bias = _given(arrays, bias_slot)
    total = _need(arrays, 0) + _need(arrays, 1)
    return total if bias is None else total + bias


def _normalised(
    x: Array, scale: Array, shift: Array | None, axes: tuple[int, ...], epsilon: float, *, centre: bool = True
) -> tuple[Array, Array, Array]:
    wide = x.astype(np.float32)
    mean = wide.mean(axes, keepdims=True) if centre else np.zeros((), np.float32)
    inverse = 1 / np.sqrt(((wide - mean) ** 2).mean(axes, keepdims=True) + epsilon)
    result = (wide - mean) * inverse * scale
    return (result if shift is None else result + shift).astype(x.dtype), mean, inverse.astype(np.float32)
