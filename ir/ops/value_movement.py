"""Elements of small integer tensors that are moved: Gather, Concat, Slice, Reshape, Transpose, ... of shape values.

Results of rank <= 1 carry their elements. Tensors of higher rank on the way (exporters reverse pads as a matrix of
pairs) are followed back through the ops that made them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..core import Op, Value
from ..dims import Dim
from ..types import TensorType
from .access import attr_int, attr_ints, elements, ints

Tracked = np.ndarray[Any, Any]  # of dimension expressions (dtype object)
_MAX_ELEMENTS = 64


def tracked(value: Value | None) -> Tracked | None:
    """The elements of a small operand in its shape, or None."""
    if value is None or not isinstance(value.type, TensorType):
        return None
    shape = value.type.static_shape
    if shape is None or np.prod(shape, dtype=np.int64) > _MAX_ELEMENTS:
        return None
    known = elements(value)
    if known is not None:
        return _array(known).reshape(shape) if len(known) == np.prod(shape, dtype=np.int64) else None
    if value.constant is not None:
        whole = value.constant.dtype.kind in ("int", "uint", "bool")
        return _array([int(x) for x in value.constant.array().ravel()]).reshape(shape) if whole else None
    if value.op is None or value.type.rank < 2 or value.op.kind not in MOVES or value.index:
        return None
    moved = MOVES[value.op.kind](value.op)
    return None if moved is None or moved.size != np.prod(shape, dtype=np.int64) else moved.reshape(shape)


def _array(items: tuple[Dim, ...] | list[int]) -> Tracked:
    made = np.empty(len(items), object)
    made[:] = items
    return made


def moved(op: Op) -> tuple[Dim, ...] | None:
    """A fold (see shape_values.py): the elements of a result of rank <= 1 that an op of MOVES makes."""
    found = MOVES[op.kind](op)
    return None if found is None else tuple(found.reshape(-1))


def _kept(op: Op) -> Tracked | None:
    return tracked(op.operand(0))


def _transpose(op: Op) -> Tracked | None:
    data = tracked(op.operand(0))
    return None if data is None else data.transpose(attr_ints(op, "perm"))


def _gather(op: Op) -> Tracked | None:
    data, at = tracked(op.operand(0)), _whole(op.operand(1))
    axis = attr_int(op, "axis")
    if data is None or at is None or not data.ndim or (at < -data.shape[axis]).any() or (at >= data.shape[axis]).any():
        return None
    taken = np.take(data, at.reshape(-1), axis)  # numpy would unwrap the object a scalar index picks
    return taken.reshape((*data.shape[: axis % data.ndim], *at.shape, *data.shape[axis % data.ndim + 1 :]))


def _whole(value: Value | None) -> np.ndarray[Any, Any] | None:
    """An operand of known integers (indices)."""
    found = tracked(value)
    return found.astype(np.int64) if found is not None and all(isinstance(d, int) for d in found.flat) else None


def _concat(op: Op) -> Tracked | None:
    parts = [tracked(v) for v in op.operands]
    known = [p for p in parts if p is not None]
    return np.concatenate(known, attr_int(op, "axis")) if len(known) == len(parts) else None


def _slice(op: Op) -> Tracked | None:
    data, starts, ends = tracked(op.operand(0)), ints(op.operand(1)), ints(op.operand(2))
    if data is None or starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if op.operand(3) is None else ints(op.operand(3))
    steps = (1,) * len(starts) if op.operand(4) is None else ints(op.operand(4))
    if axes is None or steps is None or 0 in steps:
        return None
    for start, end, axis, step in zip(starts, ends, axes, steps):
        last = None if step < 0 and end < -data.shape[axis] else end
        cut = [slice(None)] * data.ndim
        cut[axis] = slice(start, last, step)
        data = data[tuple(cut)]
    return data


def _expand(op: Op) -> Tracked | None:
    data, shape = tracked(op.operand(0)), ints(op.operand(1))
    if data is None or shape is None:
        return None
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, shape))


def _tile(op: Op) -> Tracked | None:
    data, repeats = tracked(op.operand(0)), ints(op.operand(1))
    return None if data is None or repeats is None else np.tile(data, repeats)


def _scatter(op: Op) -> Tracked | None:
    """A tensor with some elements replaced, as exporters write `shape[i] = n`."""
    data, at, updates = tracked(op.operand(0)), _whole(op.operand(1)), tracked(op.operand(2))
    if data is None or at is None or updates is None or op.attrs.get("reduction", "none") != "none":
        return None
    if data.ndim != 1 or at.size != updates.size or (abs(at) > data.size).any():
        return None
    made = data.copy()
    made[at.reshape(-1)] = updates.reshape(-1)
    return made


MOVES: Mapping[str, Callable[[Op], Tracked | None]] = {
    **dict.fromkeys(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"), _kept),
    "Transpose": _transpose,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Expand": _expand,
    "Tile": _tile,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
}
