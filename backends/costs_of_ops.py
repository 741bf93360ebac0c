"""Which series of a cost table an op belongs to, and its sizes: the table knows products and sizes, not graphs.

| op | series | sizes |
|---|---|---|
| MatMul, Gemm with a matrix as weight | MatMul | M rows, K depth, N width |
| Conv | Conv/pointwise, /dense (3 x 3) | pairs of a group's inputs and outputs, positions of the result |
| Conv of one input per group | Conv/depthwise (3 x 3) | channels, positions |
| static Conv of channels without a fast kernel | the same, `/odd` | |
| Add, Mul, Sigmoid, pools, Quantize-, DequantizeLinear, ... | their own | elements |

Kernels of another area than 3 x 3 and several groups are scaled by the work. Static products include the rounding of
their input and yield floats; all other static ops read codes and yield codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ir import dims as _dims
from ..ir.core import Op, Value
from ..ir.dims import Dim
from ..ir.types import TensorType
from .legalize_channels import FAST_CHANNELS, aligned, padded

_MEASURED_AREA = 9
Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Job:
    """A series, the sizes to look up in it, and how often that much work is done."""

    series: str
    sizes: Mapping[str, float]
    factor: float = 1.0


def job_of(op: Op, dims: Sizes, form: str = "float") -> Job | None:
    """What to look up for an op in a form; `dims` are sizes of symbolic dimensions. None where one is not known."""
    if op.kind == "Conv":
        return _conv(op, dims, static=form == "static")
    rule = _RULES.get(op.kind)
    return rule(op, dims) if rule is not None else None


def rows_of(value: Value | None, dims: Sizes) -> int | None:
    """Rows of a value that a matrix multiplies: the product of all sizes but the last."""
    shape = _shape(value, dims)
    return math.prod(shape[:-1]) if shape else None


def _shape(value: Value | None, dims: Sizes) -> tuple[int, ...] | None:
    if value is None or not isinstance(value.type, TensorType):
        return None
    sizes = [_size(d, dims) for d in value.type.shape]
    return tuple(n for n in sizes if n is not None) if None not in sizes else None


def _size(dim: Dim, dims: Sizes) -> int | None:
    return _dims.evaluate(dim, dims)


def _matmul(op: Op, dims: Sizes) -> Job | None:
    a, b = (_shape(op.operand(i), dims) for i in (0, 1))
    if a is None or b is None or len(b) != 2:
        return None
    return Job("MatMul", {"M": math.prod(a[:-1]), "K": b[0], "N": b[1]})


def _gemm(op: Op, dims: Sizes) -> Job | None:
    a, b = (_shape(op.operand(i), dims) for i in (0, 1))
    if a is None or b is None:
        return None
    rows = a[1] if op.attrs.get("transA", 0) else a[0]
    depth, width = reversed(b) if op.attrs.get("transB", 0) else b
    return Job("MatMul", {"M": rows, "K": depth, "N": width})


def _conv(op: Op, dims: Sizes, *, static: bool) -> Job | None:
    w, y = _shape(op.operand(1), dims), _shape(op.result, dims)
    if w is None or y is None or len(w) < 3:
        return None
    groups = op.attrs.get("group", 1)
    assert isinstance(groups, int)
    area, positions = math.prod(w[2:]), y[0] * math.prod(y[2:])
    outputs, inputs = w[0] // max(1, groups), w[1]
    if inputs == 1 and groups > 1:
        odd = "/odd" if static and w[0] % FAST_CHANNELS else ""
        return Job(f"Conv/depthwise{odd}", {"channels": w[0], "positions": positions}, area / _MEASURED_AREA)
    if static and groups == 1 and aligned(padded(inputs), outputs):
        inputs = padded(inputs)  # what lowering does
    odd = "/odd" if static and not aligned(inputs, outputs) else ""
    sizes = {"pairs": inputs * outputs, "positions": positions}
    if area == 1:
        return Job(f"Conv/pointwise{odd}", sizes, groups)
    return Job(f"Conv/dense{odd}", sizes, groups * area / _MEASURED_AREA)


def _elements(op: Op, dims: Sizes) -> Job | None:
    """Elements of the result."""
    y = _shape(op.result, dims)
    return Job(op.kind, {"elements": math.prod(y)}) if y is not None else None


def _read_elements(op: Op, dims: Sizes) -> Job | None:
    x = _shape(op.operand(0), dims)
    return Job(op.kind, {"elements": math.prod(x)}) if x is not None else None


_RULES: Mapping[str, Callable[[Op, Sizes], Job | None]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(("Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "Softmax"), _elements),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _elements),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "MaxPool"), _read_elements),
}
