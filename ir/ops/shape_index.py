"""Types of operators that choose among elements: Slice, Gather, Scatter, TopK, OneHot, ..."""

from __future__ import annotations

from .. import dims as _dims
from ..core import Op
from ..dims import Dim
from ..dtypes import DType
from ..types import Shape, TensorType
from .access import attr_int, axes_in, axis_in, broken, dtype, elements, ints, operand, shape
from .bounds import at_least, lower
from .opdef import Inferred

_OPEN_END = 2**31 - 1  # exporters write this, or INT64_MAX, for "to the end"


def slice_(op: Op) -> list[Inferred]:
    source = shape(op)
    starts, ends = elements(operand(op, 1)), elements(operand(op, 2))
    count = _length(op, 1)
    axes = ints(op.operand(3)) if op.operand(3) is not None else None if count is None else tuple(range(count))
    if axes is None:
        return [Inferred(TensorType(dtype(op), tuple(_dims.fresh() for _ in source)))]
    steps = elements(op.operand(4)) if op.operand(4) is not None else (1,) * len(axes)
    sizes = list(source)
    for place, axis in enumerate(axes_in(op, axes, len(source))):
        start, end, step = (None if v is None else v[place] for v in (starts, ends, steps))
        sizes[axis] = sliced(source[axis], start, end, step)
    return [Inferred(TensorType(dtype(op), tuple(sizes)))]


def _length(op: Op, slot: int) -> int | None:
    found = shape(op, slot)
    return found[0] if len(found) == 1 and isinstance(found[0], int) else None


def sliced(size: Dim, start: Dim | None, end: Dim | None, step: Dim | None) -> Dim:
    """The length of `[start:end:step]` of an axis of `size`; a fresh size where it cannot be told.

    Symbolic bounds are taken to lie inside the axis, as they do in every working model.
    """
    if start is None or end is None or not isinstance(step, int) or step == 0:
        return _dims.fresh()
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(size))) if step > 0 else _backwards(size, start, end, step)
    if step < 0:
        return _dims.ceildiv(size, -step) if _whole_backwards(size, start, end) else _dims.fresh()
    low, high = _bound(size, start, is_end=False), _bound(size, end, is_end=True)
    if low is None or high is None:
        return _one_element(start, end)
    length = _dims.add(high, _dims.mul(low, -1))
    if isinstance(length, int):
        return max(0, -(-length // step))
    return _dims.ceildiv(length, step)


def _backwards(size: int, start: int, end: int, step: int) -> int:
    """ONNX clamps both bounds of a negative step; INT64_MIN means "through element 0"."""
    first = min(start + size if start < 0 else start, size - 1)
    last = end + size if end < 0 else end
    return max(0, -(-(first - max(last, -1)) // -step))


def _whole_backwards(size: Dim, start: Dim, end: Dim) -> bool:
    """Whether a negative step runs from the last element through the first."""
    from_last = start in (-1, _dims.add(size, -1)) or (isinstance(start, int) and start >= _OPEN_END)
    return from_last and isinstance(end, int) and end <= -_OPEN_END


def _bound(size: Dim, bound: Dim, *, is_end: bool) -> Dim | None:
    """A bound counted from the front and clamped to the axis; None if it cannot be told."""
    if isinstance(bound, int):
        if bound >= _OPEN_END:
            return size
        if bound <= -_OPEN_END:
            return 0
        if bound < 0:
            moved = _dims.add(size, bound)
            return max(0, moved) if isinstance(moved, int) else moved
        if isinstance(size, int):
            return min(bound, size)
        return bound if not is_end or at_least(size, bound) else None
    least = lower(bound)
    if least is not None and least >= 0:
        return bound
    greatest = lower(_dims.mul(bound, -1))
    if greatest is not None and greatest >= 0:
        return _dims.add(size, bound)
    return bound


def _one_element(start: Dim, end: Dim) -> Dim:
    """`[i:i+1]` picks one element of an axis that has it."""
    one = isinstance(start, int) and isinstance(end, int) and end - start == 1
    return 1 if one else _dims.fresh()


def gather(op: Op) -> list[Inferred]:
    data, indices = shape(op, 0), shape(op, 1)
    axis = axis_in(op, attr_int(op, "axis"), len(data))
    return [Inferred(TensorType(dtype(op), (*data[:axis], *indices, *data[axis + 1 :])))]


def gather_elements(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op), shape(op, 1)))]


def gather_nd(op: Op) -> list[Inferred]:
    data, indices = shape(op, 0), shape(op, 1)
    batch = attr_int(op, "batch_dims")
    if not indices or not isinstance(indices[-1], int) or batch + indices[-1] > len(data):
        raise broken(op, "the last axis of the indices does not fit the data")
    return [Inferred(TensorType(dtype(op), (*indices[:-1], *data[batch + indices[-1] :])))]


def top_k(op: Op) -> list[Inferred]:
    source = shape(op)
    axis = axis_in(op, attr_int(op, "axis", -1), len(source))
    k = elements(operand(op, 1))
    size: Dim = k[0] if k is not None and len(k) == 1 else _dims.fresh()
    result: Shape = (*source[:axis], size, *source[axis + 1 :])
    return [Inferred(TensorType(dtype(op), result)), Inferred(TensorType(DType.I64, result))]


def one_hot(op: Op) -> list[Inferred]:
    indices = shape(op)
    axis = axis_in(op, attr_int(op, "axis", -1), len(indices) + 1)
    depth = elements(operand(op, 1))
    size: Dim = depth[0] if depth is not None and len(depth) == 1 else _dims.fresh()
    return [Inferred(TensorType(dtype(op, 2), (*indices[:axis], size, *indices[axis:])))]


def non_zero(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(DType.I64, (len(shape(op)), _dims.fresh("nonzero"))))]


def reverse_sequence(op: Op) -> list[Inferred]:
    source = shape(op)
    batch, time = (axis_in(op, attr_int(op, n, d), len(source)) for n, d in (("batch_axis", 1), ("time_axis", 0)))
    if batch == time:
        raise broken(op, "batch_axis and time_axis are the same")
    return [Inferred(TensorType(dtype(op), source))]
