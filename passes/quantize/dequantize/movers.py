"""Operators that mean the same on codes and on the floats behind them, as long as one grid holds for the tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ....ir.core import Op, Value
from .grids import Grid, dtype_of

if TYPE_CHECKING:
    from .work import Work

_FIRST = (0,)
_ALL = ()
#: Operator to its operands that are codes (none: all of them). They move elements, or pick them by order, or take
#: weighted means; results of another element type (positions, sizes) are the same for codes and floats.
CODES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((
        "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "GatherElements",
        "GatherND", "Expand", "Tile", "Split", "DepthToSpace", "SpaceToDepth", "ReverseSequence", "Pad", "Resize",
        "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "TopK", "Shape", "Size",
    ), _FIRST),
    "Concat": _ALL,
    "Max": _ALL,
    "Min": _ALL,
    "Where": (1, 2),
}  # fmt: skip
_EXTRAPOLATES = "tf_crop_and_resize"  # fills with a number of its own


def moved(work: Work, op: Op) -> None:
    """Repeat an operator on the floats behind its codes, if they are known; its results are known then."""
    if op.kind not in CODES:
        return
    known = next((work.reals[v] for v in _codes(op) if v in work.reals), None)
    if known is None:
        return
    twin = repeat(work, op, known.grid, lambda v: work.real(v, known.grid, op), op)
    if twin is None:
        return
    codes = dtype_of(_codes(op)[0])
    for old, new in zip(op.results, twin.results):
        if dtype_of(old) is codes:
            work.note_moved(old, known.grid, new)
        elif old.uses:
            work.rw.replace_uses(old, new)


def repeat(work: Work, op: Op, grid: Grid, real: Callable[[Value], Value | None], before: Op) -> Op | None:
    """The operator once more, on the floats behind its codes; None where that is not the same."""
    if op.kind not in CODES or not grid.is_whole or op.attrs.get("coordinate_transformation_mode") == _EXTRAPOLATES:
        return None
    operands = list(op.operands)
    for slot, value in enumerate(op.operands):
        if value is not None and slot in _slots(op):
            operands[slot] = real(value)
            if operands[slot] is None:
                return None
    if op.kind == "Pad" and op.attrs.get("mode", "constant") == "constant":
        filling = _filling(work, op, grid, real, operands[0])
        if filling is None:
            return None
        operands[2:3] = [filling]
    return work.rw.insert(op.kind, operands, op.attrs, before=before, origin=op, count=len(op.results))


def _filling(work: Work, op: Op, grid: Grid, real: Callable[[Value], Value | None], data: Value | None) -> Value | None:
    """What a Pad fills with: the number behind its code, which is 0 if left out."""
    given = op.operand(2)
    if given is not None:
        return real(given)
    found, dtype = grid.numbers(), dtype_of(data) if data is not None else None
    if found is None or dtype is None:
        return None
    scale, zero = (x.astype(np.float32).reshape(()) for x in found)
    return work.number(-zero * scale, dtype, "filling")


def _slots(op: Op) -> tuple[int, ...]:
    return CODES[op.kind] or tuple(range(len(op.operands)))


def _codes(op: Op) -> list[Value]:
    found = (op.operand(slot) for slot in _slots(op))
    return [v for v in found if v is not None]
