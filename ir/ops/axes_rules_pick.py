"""Axis rules of constant positions: Slice with constant bounds, Gather with constant indices.

What is picked is read as a list of positions, whatever wrote it. In the order in which they are tried:

    consecutive positions    a segment
    a regular lattice        factors of the axis in another order: a stride, a shuffle, every position r times
    disjoint runs            segments in another order
    anything else            single positions: the order is fixed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from .. import axis_types as ax
from ..axis_solver import Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op, Value
from ..dims import Dim
from .access import attr_int, axes_in, axis_in, ints
from .axes_rules_operands import numbers

OPEN_END = 1 << 31  # a Slice bound beyond any axis

Lattice = list[tuple[int, int]]  # (count, stride), outermost first


def slice_(op: Op, s: Solver) -> None:
    """x[.., start:end:step, ..] along some axes; starts, ends, axes and steps are lists of one length."""
    x = list(s.need(op, 0))
    numbers(op, s, 1, 2, 3, 4)
    starts, ends = ints(op.operand(1)), ints(op.operand(2))
    axes = ints(op.operand(3)) if op.operand(3) is not None else tuple(range(len(starts or ())))
    steps = ints(op.operand(4)) if op.operand(4) is not None else (1,) * len(axes or ())
    if axes is None:
        raise Opaque("dynamic-axes")
    dims = s.shape(op.results[0])
    for position, axis in enumerate(axes_in(op, axes, len(x))):
        if starts is None or ends is None or steps is None:
            s.pin(op, x[axis], "dynamic-bounds")
            x[axis] = s.pinned(op, dims[axis], "dynamic-bounds")
        else:
            x[axis] = _cut(op, s, x[axis], (starts[position], ends[position], steps[position]), dims[axis])
    s.out(op, x)


def _cut(op: Op, s: Solver, t: AxisType, bounds: tuple[int, int, int], wanted: Dim) -> AxisType:
    """One axis of a Slice with constant bounds."""
    start, end, step = bounds
    n = ax.static(t)
    if start == 0 and step == 1 and end >= OPEN_END:
        return t
    if n is None or not isinstance(wanted, int):
        s.pin(op, t, "symbolic-size")
        return s.pinned(op, wanted, "symbolic-size")
    found = _picked(op, s, t, slice_positions(start, end, step, n))
    if found is None:
        s.pin(op, t, "strided")
        return s.pinned(op, wanted, "strided")
    return found


def slice_positions(start: int, end: int, step: int, n: int) -> range:
    """The positions of an axis of size n that x[start:end:step] takes."""
    return range(*slice(start, end if step > 0 or end >= -n else None, step).indices(n))


def gather(op: Op, s: Solver) -> None:
    """Constant indices pick positions; computed ones address the axis, so that its order is fixed."""
    x = s.need(op, 0)
    axis = axis_in(op, attr_int(op, "axis"), len(x))
    index = s.need(op, 1)
    constant = positions_of(op.operand(1), ax.static(x[axis]))
    if constant is None:
        s.pin(op, x[axis], "data-index")
        return s.out(op, [*x[:axis], *index, *x[axis + 1 :]])
    found = _picked(op, s, x[axis], constant)
    if found is None:  # the list may be written in another order: it is a table of its own
        s.pin(op, x[axis], "index-constant")
        found = index[0] if index else ONE
    else:
        numbers(op, s, 1)
    s.out(op, [*x[:axis], *([found] if len(index) == 1 else []), *x[axis + 1 :]])


Ints = Callable[[Value | None], tuple[int, ...] | None]


def positions_of(value: Value | None, n: int | None, read: Ints = ints) -> tuple[int, ...] | None:
    """A constant list of indices into an axis of size n, as positions; None if it is computed or of rank 2 and more.

    `read` says the elements of a small list that is computed from sizes.
    """
    constant = None if value is None else value.constant
    if constant is not None and constant.type.rank <= 1 and n:
        return tuple(int(i) % n for i in constant.array().reshape(-1))
    known = read(value)
    return tuple(i % n for i in known) if known is not None and n else None


def _picked(op: Op, s: Solver, t: AxisType, positions: Sequence[int]) -> AxisType | None:
    """The axis that holds these positions of another one, in this order; None if only a list can say it."""
    n = ax.static(t)
    assert n is not None
    if not positions:  # of fewer positions the bounds might take some
        s.pin(op, t, "empty-axis")
        return s.pinned(op, 0, "empty-axis")
    first, last = positions[0], positions[-1]
    if all(b == a + 1 for a, b in pairwise(positions)):
        return s.split(op, t, [first, last + 1 - first, n - last - 1])[1]
    found = _on_lattice(op, s, t, positions, n)
    return found if found is not None else _in_runs(op, s, t, positions, n)


def _on_lattice(op: Op, s: Solver, t: AxisType, positions: Sequence[int], n: int) -> AxisType | None:
    """Positions first + i1*s1 + i2*s2 + ... that use up whole factors of the axis."""
    steps = lattice(positions)
    radix = None if steps is None else _radix(steps, positions[0], n)
    if steps is None or radix is None:
        return None
    factors = dict(zip((stride for _, stride in radix), s.regroup(op, [t], [count for count, _ in radix])))
    moved = {stride for _, stride in steps}
    for stride, factor in factors.items():
        if stride not in moved:  # one residue is taken, the others stay behind: they differ
            s.pin(op, factor, "interleaved")
    return ax.prod(ax.resolve(factors[stride]) if stride else ax.atom(count) for count, stride in steps)


def lattice(positions: Sequence[int]) -> Lattice | None:
    """Positions as nested loops with constant strides, outermost first; None if one stride is negative."""
    steps: Lattice = []
    while len(positions) > 1:
        stride = positions[1] - positions[0]
        count = next((k for k, p in enumerate(positions) if p != positions[0] + k * stride), len(positions))
        block = range(count)
        if stride < 0 or len(positions) % count:
            return None
        starts = positions[::count]
        if any(positions[i * count + k] != start + k * stride for i, start in enumerate(starts) for k in block):
            return None
        steps.insert(0, (count, stride))
        positions = starts
    return steps


def _radix(steps: Lattice, first: int, n: int) -> Lattice | None:
    """The mixed radix of an axis of size n in which every stride belongs to one whole factor that starts at 0."""
    moved = sorted((stride, stride * count) for count, stride in steps if stride)
    if any(end > start for (_, end), (start, _) in pairwise(moved)) or any(first // a % (b // a) for a, b in moved):
        return None
    chain = sorted({1, n, *(edge for pair in moved for edge in pair)})
    if chain[-1] != n or any(b % a for a, b in pairwise(chain)):
        return None
    return [(b // a, a) for a, b in reversed(list(pairwise(chain)))]


def _in_runs(op: Op, s: Solver, t: AxisType, positions: Sequence[int], n: int) -> AxisType | None:
    """Segments in another order; None if all are single positions, or one is taken twice."""
    ends = [i + 1 for i, (a, b) in enumerate(pairwise(positions)) if b != a + 1]
    runs = [(positions[a], positions[b - 1] + 1) for a, b in pairwise([0, *ends, len(positions)])]
    if len(set(positions)) < len(positions) or len(runs) == len(positions):
        return None
    cuts = sorted({0, n, *(edge for run in runs for edge in run)})
    pieces = dict(zip(cuts, s.split(op, t, [b - a for a, b in pairwise(cuts)])))
    return ax.concat(pieces[start] for start, _ in runs)
