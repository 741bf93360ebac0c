"""Types of operators whose result size is computed: Shape, Range, ConstantOfShape, Resize, ..."""

from __future__ import annotations

import math
from fractions import Fraction

from .. import dims as _dims
from ..constants import Constant
from ..core import Op
from ..dims import Dim
from ..dtypes import BY_ONNX, DType
from ..types import TensorType
from .access import (
    Unranked,
    attr_int,
    attr_ints,
    attr_text,
    axes_in,
    broken,
    dtype,
    elements,
    fractions,
    operand,
    shape,
    unknown_sizes,
    vector,
)
from .opdef import Inferred

_LARGEST_DENOMINATOR = 4096  # of a scale that is taken as a fraction; others come from rounding


def shape_range(op: Op, rank: int) -> range:
    """The axes that Shape(start, end) reports."""
    start, end = attr_int(op, "start"), attr_int(op, "end", rank)
    low, high = (max(0, min(rank, b + rank if b < 0 else b)) for b in (start, end))
    return range(low, max(low, high))


def shape_of_input(op: Op) -> list[Inferred]:
    source = shape(op)
    taken = shape_range(op, len(source))
    dims = tuple(source[i] for i in taken)
    return [Inferred(TensorType(DType.I64, (len(dims),)), dims)]


def size(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(DType.I64, ()), (_dims.product(shape(op)),))]


def constant_of_shape(op: Op) -> list[Inferred]:
    wanted = elements(operand(op, 0))
    value = op.attrs.get("value")
    element = value.dtype if isinstance(value, Constant) else DType.F32
    if wanted is None:
        (length,) = vector(op)
        if not isinstance(length, int):
            raise Unranked
        wanted = unknown_sizes(op, length)
    return [Inferred(TensorType(element, wanted))]


def range_(op: Op) -> list[Inferred]:
    start, limit, step = (elements(operand(op, slot)) for slot in range(3))
    count: Dim = _dims.fresh("range")
    if start is not None and limit is not None and step is not None:
        span = _dims.add(limit[0], _dims.mul(start[0], -1))
        if isinstance(step[0], int) and step[0] != 0:
            count = _dims.ceildiv(span, step[0]) if step[0] > 0 else _dims.ceildiv(_dims.mul(span, -1), -step[0])
            count = max(0, count) if isinstance(count, int) else count
    else:
        count = _float_count(op, count)
    return [Inferred(TensorType(dtype(op), (count,)))]


def _float_count(op: Op, unknown: Dim) -> Dim:
    start, limit, step = (fractions(operand(op, slot)) for slot in range(3))
    if start is None or limit is None or step is None or step[0] == 0:
        return unknown
    return max(0, math.ceil((limit[0] - start[0]) / step[0]))


def eye_like(op: Op) -> list[Inferred]:
    code = attr_int(op, "dtype", -1)
    return [Inferred(TensorType(BY_ONNX.get(code, dtype(op)), shape(op)))]


def resize(op: Op) -> list[Inferred]:
    """By sizes if given, else floor(size * scale); `axes` restricts both. Aspect-ratio policies need numbers."""
    source = shape(op)
    listed = attr_ints(op, "axes")
    axes = tuple(range(len(source))) if listed is None else axes_in(op, listed, len(source))
    made = list(source)
    scales, sizes = op.operand(2), op.operand(3)
    if sizes is not None:
        wanted = elements(sizes)
        stretch = attr_text(op, "keep_aspect_ratio_policy", "stretch") == "stretch"
        if wanted is not None and len(wanted) != len(axes):
            raise broken(op, f"{len(wanted)} sizes for {len(axes)} axes")
        for place, axis in enumerate(axes):
            made[axis] = wanted[place] if wanted is not None and stretch else _dims.fresh()
    elif scales is not None:
        factors = fractions(scales)
        for place, axis in enumerate(axes):
            made[axis] = _scaled(source[axis], factors[place]) if factors else _dims.fresh()
    else:
        raise broken(op, "neither scales nor sizes are given")
    return [Inferred(TensorType(dtype(op), tuple(made)))]


def _scaled(size: Dim, factor: Fraction) -> Dim:
    if isinstance(size, int):
        return math.floor(size * factor)
    if factor.denominator > _LARGEST_DENOMINATOR:
        return _dims.fresh()
    return _dims.floordiv(_dims.mul(size, factor.numerator), factor.denominator)


def grid_sample(op: Op) -> list[Inferred]:
    source, grid = shape(op), shape(op, 1)
    return [Inferred(TensorType(dtype(op), (*source[:2], *grid[1:-1])))]


def affine_grid(op: Op) -> list[Inferred]:
    wanted = elements(operand(op, 1))
    if wanted is None:
        raise Unranked
    return [Inferred(TensorType(dtype(op), (wanted[0], *wanted[2:], len(wanted) - 2)))]


def center_crop_pad(op: Op) -> list[Inferred]:
    source, wanted = shape(op), elements(operand(op, 1))
    listed = attr_ints(op, "axes")
    axes = tuple(range(len(source))) if listed is None else axes_in(op, listed, len(source))
    made: list[Dim] = list(source)
    for place, axis in enumerate(axes):
        made[axis] = wanted[place] if wanted is not None else _dims.fresh()
    return [Inferred(TensorType(dtype(op), tuple(made)))]
