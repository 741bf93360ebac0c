"""Slices that take rows of a table: what positional embeddings become when sequences are shorter than the table."""

from __future__ import annotations

from .core import Op, Value
from .dims import Sym
from .ops.access import elements, ints


def sliced_rows(op: Op) -> tuple[int, Value] | None:
    """(first row, value that holds the end) of a Slice that takes rows of a table in order; None for other slices.

    The end is known not to be negative: an integer, or a size. It may lie beyond the table.
    """
    if op.kind != "Slice" or op.operand(1) is None or op.operand(2) is None:
        return None
    start, axes = ints(op.operand(1)), ints(op.operand(3))
    steps = ints(op.operand(4)) if op.operand(4) is not None else (1,)
    end = op.operand(2)
    ends = elements(end)
    if axes is None and op.operand(3) is None:
        axes = (0,)
    if start is None or len(start) != 1 or start[0] < 0 or axes != (0,) or steps != (1,) or not ends or len(ends) != 1:
        return None
    known = isinstance(ends[0], Sym) or (isinstance(ends[0], int) and ends[0] >= 0)
    assert end is not None
    return (start[0], end) if known else None
