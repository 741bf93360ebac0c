"""Types of reductions and of norms with statistics as further results."""

from __future__ import annotations

from .. import dims as _dims
from ..core import Op
from ..dtypes import BY_ONNX, DType
from ..types import Shape, TensorType
from .access import Unranked, attr_int, attr_ints, axes_in, axis_in, dtype, ints, shape
from .opdef import Inferred


def reduce(op: Op) -> list[Inferred]:
    source = shape(op)
    axes = reduced_axes(op, len(source))
    keep = bool(attr_int(op, "keepdims", 1))
    if axes is None:
        if not keep:
            raise Unranked
        return [Inferred(TensorType(dtype(op), tuple(_dims.fresh() for _ in source)))]
    return [Inferred(TensorType(dtype(op), _reduced(source, axes, keep=keep)))]


def reduced_axes(op: Op, rank: int) -> tuple[int, ...] | None:
    """The axes a reduction removes; None if they are computed at run time."""
    value = op.operand(1)
    listed = ints(value) if value is not None else attr_ints(op, "axes")
    if value is not None and listed is None:
        return None
    if not listed:
        return () if attr_int(op, "noop_with_empty_axes") else tuple(range(rank))
    return axes_in(op, listed, rank)


def _reduced(source: Shape, axes: tuple[int, ...], *, keep: bool) -> Shape:
    if keep:
        return tuple(1 if i in axes else d for i, d in enumerate(source))
    return tuple(d for i, d in enumerate(source) if i not in axes)


def arg_reduce(op: Op) -> list[Inferred]:
    source = shape(op)
    axis = axis_in(op, attr_int(op, "axis"), len(source))
    return [Inferred(TensorType(DType.I64, _reduced(source, (axis,), keep=bool(attr_int(op, "keepdims", 1)))))]


def layer_norm(op: Op) -> list[Inferred]:
    """The result, and mean and inverse deviation in `stash_type` with the normalised axes reduced to 1."""
    source = shape(op)
    axis = axis_in(op, attr_int(op, "axis", -1), len(source))
    stats = TensorType(
        BY_ONNX.get(attr_int(op, "stash_type", 1), DType.F32), (*source[:axis], *(1,) * (len(source) - axis))
    )
    return [Inferred(TensorType(dtype(op), source)), Inferred(stats), Inferred(stats)]


def batch_norm(op: Op) -> list[Inferred]:
    statistics = Inferred(TensorType(dtype(op, 3), shape(op, 3)))
    return [Inferred(TensorType(dtype(op), shape(op))), statistics, Inferred(TensorType(dtype(op, 4), shape(op, 4)))]
