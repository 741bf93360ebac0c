"""Along which axis of a weight its output channels lie: each channel has a scale of its own.

A scale per output channel leaves the product of codes to be scaled once, after the sum. Rows of tables are channels
too, along the axis by which they are taken: each is read as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

from ....ir.core import Op
from ....ir.ops.access import attr_int, ints
from ..weights import Reader, describe

Axis = int | str  # a string says why there is none

_FOLDED = "it takes the same rows on every run: runtimes fold that, and would not fold codes"


def _convolution(op: Op, rank: int) -> Axis:
    return 0


def _transposed_convolution(op: Op, rank: int) -> Axis:
    return 1


def _right(op: Op, rank: int) -> Axis:
    return rank - 1


def _left(op: Op, rank: int) -> Axis:
    return rank - 2


def _gemm(op: Op, rank: int) -> Axis:
    return 0 if attr_int(op, "transB") else 1


def _gates(op: Op, rank: int) -> Axis:
    return 1


def _gathered(op: Op, rank: int) -> Axis:
    if ints(op.operand(1)) is not None:
        return _FOLDED
    return attr_int(op, "axis") % rank


def _sliced(op: Op, rank: int) -> Axis:
    if ints(op.operand(2)) is not None:
        return _FOLDED
    axes = ints(op.operand(3))
    return axes[0] % rank if axes else 0


_AXES: dict[tuple[str, int], Callable[[Op, int], Axis]] = {
    ("Conv", 1): _convolution,
    ("ConvTranspose", 1): _transposed_convolution,
    ("MatMul", 1): _right,
    ("MatMul", 0): _left,
    ("Gemm", 1): _gemm,
    ("Gather", 0): _gathered,
    ("Slice", 0): _sliced,
    **{(kind, slot): _gates for kind in ("LSTM", "GRU", "RNN") for slot in (1, 2)},
}


def channel_axis(reader: Reader, rank: int) -> Axis:
    """The axis of the *constant* along which the channels of this reader lie."""
    rule = _AXES.get((reader.op.kind, reader.slot))
    if rule is None:
        return f"{describe(reader)} has no 8-bit form"
    axis = rule(reader.op, rank)
    return axis if isinstance(axis, str) else (1 - axis if reader.transposed else axis)
