"""How an operator's explicit sizes follow when units of an axis class are removed: groups, bounds, shape constants.

Operators that are not here state no sizes of their own; their results follow from their operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import axis_types as ax
from ..axes import Axes, Index
from ..axis_solver import Axis
from ..axis_types import AxisType
from ..core import Op, Value
from ..dims import Dim
from ..dtypes import DType
from ..rewrite import Rewriter
from ..types import TensorType
from .access import attr_int, axes_in, axis_in, elements, ints
from .axes_rules_pick import OPEN_END, positions_of, slice_positions


class CannotResize(Exception):
    """The sizes of an op cannot follow; the classes that touch it have to stay as they are."""

    def __init__(self, op: Op, classes: frozenset[int], why: str) -> None:
        super().__init__(why)
        self.op, self.classes, self.why = op, classes, why


class Resizer:
    """A choice of kept units per class, and what becomes of sizes and positions under it."""

    def __init__(self, rw: Rewriter, axes: Axes, kept: Mapping[int, Index]) -> None:
        self.rw, self.axes, self.kept = rw, axes, kept
        self.counts = {c: len(units) for c, units in kept.items()}

    def types(self, value: Value | None) -> Axis:
        found = None if value is None else self.axes.of(value)
        return found or ()

    def touches(self, t: AxisType) -> bool:
        return any(c.id in self.kept for c in self.axes.within(t))

    def size(self, t: AxisType) -> Dim:
        return self.axes.resized(t, self.counts)

    def kept_positions(self, t: AxisType) -> Index:
        """The old positions along an axis that stay."""
        found = self.axes.expand(t, self.kept)
        assert found is not None
        return found

    def boundary(self, t: AxisType, position: int) -> int:
        """Where a cut in front of an old position lies now."""
        return int(np.searchsorted(self.kept_positions(t), position))

    def refuse(self, op: Op, why: str) -> CannotResize:
        values = (*op.operands, *op.results)
        touched = frozenset(c for v in values if v is not None for c in self.axes.touched(v))
        return CannotResize(op, touched & frozenset(self.kept), why)

    def set_numbers(self, op: Op, slot: int, wanted: Sequence[Dim | None]) -> None:
        """Let the elements of an integer operand be `wanted` (None: as they are), changing as little as possible."""
        value = op.operand(slot)
        assert value is not None
        now = elements(value) or (None,) * len(wanted)
        wrong = {i: n for i, (n, m) in enumerate(zip(wanted, now)) if n is not None and n != m}
        if not wrong:
            return
        if not all(isinstance(n, int) for n in wrong.values()):
            raise self.refuse(op, "a size that depends on the input would have to be scaled")
        mask = np.array([i in wrong for i in range(len(wanted))])
        numbers = np.array([wrong.get(i, 0) for i in range(len(wanted))], np.int64)
        self.rw.set_operand(op, slot, self._patched(op, value, mask, numbers))

    def _patched(self, op: Op, value: Value, mask: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]) -> Value:
        dtype = value.type.dtype  # type: ignore[union-attr]  # an integer tensor
        if value.constant is not None or mask.all():
            old = value.constant.array().reshape(-1) if value.constant is not None else numbers
            return self.rw.constant(np.where(mask, numbers, old), value.name, dtype=dtype)
        if (
            value.op is not None
            and value.op.kind == "Concat"
            and all(len(self.types(v)) == 1 for v in value.op.operands)
        ):
            rebuilt = self._patched_concat(op, value.op, mask, numbers, dtype)
            if rebuilt is not None:
                return rebuilt
        keep = self.rw.constant(~mask, f"{op.name}_kept")
        new = self.rw.constant(numbers, f"{op.name}_sizes", dtype=dtype)
        return self.rw.insert("Where", [keep, value, new], before=op).result

    def _patched_concat(
        self, op: Op, source: Op, mask: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any], dtype: DType
    ) -> Value | None:
        """The usual shape chain: a Concat of single sizes, some of them constant."""
        if len(source.operands) != len(mask):
            return None
        parts = [
            self.rw.constant(numbers[i : i + 1], f"{op.name}_size", dtype=dtype) if mask[i] else v
            for i, v in enumerate(source.operands)
        ]
        return self.rw.insert("Concat", parts, {"axis": 0}, before=op, origin=source).result


Resize = Callable[[Op, Resizer], None]


def _groups(t: AxisType, count: int, r: Resizer, op: Op) -> int:
    """How many groups are left of an axis that holds `count` of them."""
    n = ax.static(t)
    cut = ax.regroup([t], [count, n // count]) if n is not None else None
    left = r.size(cut[0]) if cut is not None else None
    if not isinstance(left, int):
        raise r.refuse(op, "the groups of the channels cannot be told apart")
    return left


def _conv(slot: int) -> Resize:
    def resize(op: Op, r: Resizer) -> None:
        group, x = attr_int(op, "group", 1), r.types(op.operand(slot))
        if group > 1 and r.touches(x[1]):
            r.rw.set_attr(op, "group", _groups(x[1], group, r, op))

    return resize


def _recurrent(op: Op, r: Resizer) -> None:
    width = r.size(r.types(op.operand(2))[2])
    if "hidden_size" in op.attrs and isinstance(width, int):
        r.rw.set_attr(op, "hidden_size", width)


def _group_norm(op: Op, r: Resizer) -> None:
    channels = r.types(op.operand(0))[1]
    if r.touches(channels):
        r.rw.set_attr(op, "num_groups", _groups(channels, attr_int(op, "num_groups", 1), r, op))


def _reshape(op: Op, r: Resizer) -> None:
    """Elements that say 'infer' or 'copy' go on saying so."""
    target = elements(op.operand(1))
    zero_copies = not attr_int(op, "allowzero")
    wanted: list[Dim | None] = []
    for i, t in enumerate(r.types(op.results[0])):
        says = target[i] if target is not None else None
        follows = says == -1 or (says == 0 and zero_copies)
        wanted.append(r.size(t) if r.touches(t) and not follows else None)
    r.set_numbers(op, 1, wanted)


def _expand(op: Op, r: Resizer) -> None:
    target = elements(op.operand(1))
    types = r.types(op.results[0])
    count = len(target) if target is not None else len(types)
    offset = len(types) - count
    stays = [target is not None and target[i] == 1 for i in range(count)]
    tail = types[offset:]
    r.set_numbers(op, 1, [r.size(t) if r.touches(t) and not one else None for t, one in zip(tail, stays)])


def _constant_of_shape(op: Op, r: Resizer) -> None:
    r.set_numbers(op, 0, [r.size(t) if r.touches(t) else None for t in r.types(op.results[0])])


def _tile(op: Op, r: Resizer) -> None:
    wanted: list[Dim | None] = []
    for t, whole in zip(r.types(op.operand(0)), r.types(op.results[0])):
        one, many = r.size(t), r.size(whole)
        known = isinstance(one, int) and isinstance(many, int) and one > 0
        wanted.append(many // one if known and r.touches(whole) else None)  # type: ignore[operator]
    r.set_numbers(op, 1, wanted)


def _split(op: Op, r: Resizer) -> None:
    x = r.types(op.operand(0))
    axis = axis_in(op, attr_int(op, "axis"), len(x))
    if not r.touches(x[axis]):
        return
    wanted = [r.size(r.types(v)[axis]) for v in op.results]
    if op.operand(1) is not None:
        r.set_numbers(op, 1, wanted)
    elif len(set(wanted)) > 1:
        sizes = r.rw.constant(np.array(wanted, np.int64), f"{op.name}_split")
        r.rw.set_attr(op, "num_outputs", None)
        r.rw.set_operand(op, 1, sizes)


def _slice(op: Op, r: Resizer) -> None:
    x = r.types(op.operand(0))
    starts, ends = ints(op.operand(1)), ints(op.operand(2))
    axes = ints(op.operand(3)) if op.operand(3) is not None else tuple(range(len(starts or ())))
    steps = ints(op.operand(4)) if op.operand(4) is not None else (1,) * len(axes or ())
    if axes is None:
        return
    bounds: list[tuple[Dim | None, Dim | None]] = []
    for i, axis in enumerate(axes_in(op, axes, len(x))):
        t, n = x[axis], ax.static(x[axis])
        if not r.touches(t) or n is None or starts is None or ends is None or steps is None:
            bounds.append((None, None))
            continue
        taken = slice_positions(starts[i], ends[i], steps[i], n)
        if not taken:
            bounds.append((None, None))
            continue
        result = r.types(op.results[0])[axis]
        stay = r.kept_positions(result) if r.touches(result) else np.arange(len(taken))
        first = r.boundary(t, taken[int(stay[0])])
        to_the_end = steps[i] > 0 and (ends[i] == n or ends[i] >= OPEN_END)
        stop = first + len(stay) * steps[i]
        bounds.append((first, None if to_the_end else stop if stop >= 0 else -OPEN_END))
    r.set_numbers(op, 1, [b for b, _ in bounds])
    r.set_numbers(op, 2, [e for _, e in bounds])


def _gather(op: Op, r: Resizer) -> None:
    """Constant indices: those of the kept positions of the result, counted among the kept ones of the operand."""
    x, result = r.types(op.operand(0)), r.types(op.results[0])
    value = op.operand(1)
    axis = axis_in(op, attr_int(op, "axis"), len(x))
    indices = positions_of(value, ax.static(x[axis]))
    if not r.touches(x[axis]) or indices is None:
        return
    assert value is not None
    assert isinstance(value.type, TensorType)
    kept = r.kept_positions(x[axis])
    listed = value.type.rank == 1 and r.touches(result[axis])
    stay = r.kept_positions(result[axis]) if listed else np.arange(len(indices))
    array = np.searchsorted(kept, np.array(indices, np.int64)[stay]).astype(np.int64)
    r.rw.set_operand(
        op, 1, r.rw.constant(array.reshape(() if value.type.rank == 0 else -1), value.name, dtype=value.type.dtype)
    )


def _pad(op: Op, r: Resizer) -> None:
    x, pads = r.types(op.operand(0)), ints(op.operand(1))
    axes = ints(op.operand(3)) if op.operand(3) is not None else tuple(range(len(x)))
    if pads is None or axes is None:
        return
    wanted: list[Dim | None] = [None] * len(pads)
    for i, axis in enumerate(axes_in(op, axes, len(x))):
        before, after, whole = pads[i], pads[i + len(axes)], r.types(op.results[0])[axis]
        if not r.touches(whole) or (before == after == 0):
            continue
        n = ax.static(whole)
        if before < 0 or after < 0 or n is None:
            raise r.refuse(op, "a border that cuts into the units")
        left = r.boundary(whole, before)
        wanted[i] = left
        wanted[i + len(axes)] = len(r.kept_positions(whole)) - r.boundary(whole, n - after)
    r.set_numbers(op, 1, wanted)


def _resize(op: Op, r: Resizer) -> None:
    sizes = op.operand(3)
    if sizes is not None and "axes" not in op.attrs:
        r.set_numbers(op, 3, [r.size(t) if r.touches(t) else None for t in r.types(op.results[0])])


RESIZE: Mapping[str, Resize] = {
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv(0),
    "ConvInteger": _conv(0),
    "ConvTranspose": _conv(0),
    "Expand": _expand,
    "GRU": _recurrent,
    "Gather": _gather,
    "GroupNormalization": _group_norm,
    "LSTM": _recurrent,
    "Pad": _pad,
    "QLinearConv": _conv(0),
    "RNN": _recurrent,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
}
