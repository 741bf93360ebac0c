"""How an operator's explicit sizes follow when units of an axis class are removed: groups, bounds, shape constants.

Operators that are not here state no sizes of their own; their results follow from their operands.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import axis_types as ax
from ..axis_types import AxisType
from ..core import Op
from ..dims import Dim
from ..types import TensorType
from . import axes_rules_resize_attention as attention
from .access import attr_int, axes_in, axis_in, elements
from .axes_resizer import CannotResize, Resize, Resizer
from .axes_rules_pick import OPEN_END, positions_of, slice_positions

__all__ = ["RESIZE", "CannotResize", "Resizer"]


def _conv(slot: int) -> Resize:
    """Groups, counted in the weight of `slot`: [O, C / group, ..], or [C, O / group, ..] where it is transposed."""

    def resize(op: Op, r: Resizer) -> None:
        group, w = attr_int(op, "group", 1), r.types(op.operand(slot))
        if group > 1 and w and r.touches(w[0]):
            r.rw.set_attr(op, "group", r.count(op, w[0], group))

    return resize


def _deform_conv(op: Op, r: Resizer) -> None:
    x, groups = r.types(op.operand(0)), attr_int(op, "offset_group", 1)
    if groups > 1 and r.touches(x[1]):
        r.rw.set_attr(op, "offset_group", r.count(op, x[1], groups))
    _conv(1)(op, r)


def _recurrent(op: Op, r: Resizer) -> None:
    width = r.size(r.types(op.results[0])[-1])
    if "hidden_size" in op.attrs and isinstance(width, int):
        r.rw.set_attr(op, "hidden_size", width)


def _group_norm(name: str) -> Resize:
    def resize(op: Op, r: Resizer) -> None:
        channels = r.types(op.operand(1))[0]  # scale: one for each channel, before opset 21 for each group
        if r.touches(channels):
            r.rw.set_attr(op, name, r.count(op, channels, attr_int(op, name, 1)))

    return resize


def _stated(r: Resizer, t: AxisType, says: Dim | None) -> Dim | None:
    """What an element that states the size of an axis has to be; None: as it is.

    An axis that is not touched may have to be stated, too: its size was computed from one that shrinks.
    """
    n = r.size(t)
    drifted = isinstance(says, int) and isinstance(n, int) and says != n
    return n if r.touches(t) or drifted else None


def _reshape(op: Op, r: Resizer) -> None:
    """Elements that say 'infer' or 'copy' go on saying so."""
    types = r.types(op.results[0])
    target = elements(op.operand(1)) or (None,) * len(types)
    open_sizes = (-1,) if attr_int(op, "allowzero") else (-1, 0)
    r.set_numbers(op, 1, [None if says in open_sizes else _stated(r, t, says) for t, says in zip(types, target)])


def _expand(op: Op, r: Resizer) -> None:
    target = elements(op.operand(1))
    types = r.types(op.results[0])
    says = target if target is not None else (None,) * len(types)
    tail = types[len(types) - len(says) :]
    r.set_numbers(op, 1, [None if n == 1 else _stated(r, t, n) for t, n in zip(tail, says)])


def _constant_of_shape(op: Op, r: Resizer) -> None:
    types = r.types(op.results[0])
    says = elements(op.operand(0)) or (None,) * len(types)
    r.set_numbers(op, 0, [_stated(r, t, n) for t, n in zip(types, says)])


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
    starts, ends = r.ints(op.operand(1)), r.ints(op.operand(2))
    axes = r.ints(op.operand(3)) if op.operand(3) is not None else tuple(range(len(starts or ())))
    steps = r.ints(op.operand(4)) if op.operand(4) is not None else (1,) * len(axes or ())
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
    indices = positions_of(value, ax.static(x[axis]), r.ints)
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
    x, pads = r.types(op.operand(0)), r.ints(op.operand(1))
    axes = r.ints(op.operand(3)) if op.operand(3) is not None else tuple(range(len(x)))
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


def _quantize(op: Op, r: Resizer) -> None:
    """Blocks may lose positions, all of them the same number."""
    block, x, scale = attr_int(op, "block_size"), r.types(op.operand(0)), r.types(op.operand(1))
    if not block or len(x) != len(scale):
        return
    axis = axis_in(op, attr_int(op, "axis", 1), len(x))
    if r.touches(x[axis]):
        r.rw.set_attr(op, "block_size", r.number(op, x[axis]) // r.number(op, scale[axis]))


def _matmul_nbits(op: Op, r: Resizer) -> None:
    r.rw.set_attr(op, "K", r.number(op, r.types(op.operand(0))[-1]))
    r.rw.set_attr(op, "N", r.number(op, r.types(op.operand(1))[0]))


_STANDARD: Mapping[str, Resize] = {
    "Attention": attention.standard,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "ConvTranspose": _conv(1),
    "DeformConv": _deform_conv,
    "DequantizeLinear": _quantize,
    "Expand": _expand,
    "GRU": _recurrent,
    "Gather": _gather,
    "GroupNormalization": _group_norm("num_groups"),
    "LSTM": _recurrent,
    "Pad": _pad,
    "QLinearConv": _conv(3),
    "QuantizeLinear": _quantize,
    "RNN": _recurrent,
    "RotaryEmbedding": attention.rotary(1),
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
}
_CONTRIB: Mapping[str, Resize] = {
    "DequantizeLinear": _quantize,
    "QuantizeLinear": _quantize,
    "Attention": attention.projected,
    "DynamicQuantizeLSTM": _recurrent,
    "FusedConv": _conv(1),
    "GroupNorm": _group_norm("groups"),
    "GroupQueryAttention": attention.group_query,
    "MatMulNBits": _matmul_nbits,
    "MultiHeadAttention": attention.multi_head,
    "NhwcConv": _conv(1),
    "QAttention": attention.projected_alike,
    "RotaryEmbedding": attention.rotary(2),
    "SkipGroupNorm": _group_norm("groups"),
}
RESIZE: Mapping[str, Resize] = {**_STANDARD, **{f"com.microsoft::{name}": rule for name, rule in _CONTRIB.items()}}
