"""Axis rules of operators that address a tensor with computed positions.

The axis that is addressed keeps its order; all others pass. Positions that come out as values pin what they count.
"""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op
from .access import attr_int, attr_text, axis_in
from .axes_rules_operands import numbers

INDEX = "data-index"


def gather_elements(op: Op, s: Solver) -> None:
    """data [.., n, ..], indices of the same rank: result[i, j] = data[indices[i, j], j] for axis 0."""
    data, index = s.need(op, 0), s.need(op, 1)
    axis = axis_in(op, attr_int(op, "axis"), len(data))
    s.pin(op, data[axis], INDEX)
    for i, (t, wanted) in enumerate(zip(data, index)):
        if i != axis:
            _prefix(op, s, t, wanted)
    s.out(op, [ax.resolve(t) for t in index])


def _prefix(op: Op, s: Solver, t: AxisType, wanted: AxisType) -> None:
    """The first positions of an axis, as many as `wanted` has, are that axis."""
    whole, part = ax.size(t), ax.size(wanted)
    if whole == part:
        s.unify(op, t, wanted)
    elif isinstance(whole, int) and isinstance(part, int) and part < whole:
        s.unify(op, s.split(op, t, [part, whole - part])[0], wanted)
    else:
        s.pin(op, t, "symbolic-size")
        s.pin(op, wanted, "symbolic-size")


def scatter_elements(op: Op, s: Solver) -> None:
    """data, then indices and updates of one shape: data[indices[i, j], j] = updates[i, j] for axis 0."""
    data, index, updates = s.need(op, 0), s.need(op, 1), s.need(op, 2)
    axis = axis_in(op, attr_int(op, "axis"), len(data))
    s.pin(op, data[axis], INDEX)
    _last_one_wins(op, s, index[axis])
    for i, (a, b) in enumerate(zip(index, updates)):
        s.unify(op, a, b)
        if i != axis:
            _prefix(op, s, data[i], a)
    s.out(op, [ax.resolve(t) for t in data])


def _last_one_wins(op: Op, s: Solver, *types: AxisType) -> None:
    """Without a reduction, where two updates meet, their order decides."""
    if attr_text(op, "reduction", "none") == "none":
        for t in types:
            s.pin(op, t, "order-matters")


def gather_nd(op: Op, s: Solver) -> None:
    """data [b.., d1..dk, rest..], indices [b.., picks.., k]: result [b.., picks.., rest..]."""
    data, index = s.need(op, 0), s.need(op, 1)
    batch, depth = attr_int(op, "batch_dims"), _depth(index)
    for a, b in zip(data[:batch], index[:batch]):
        s.unify(op, a, b)
    for t in (*data[batch : batch + depth], index[-1]):
        s.pin(op, t, INDEX)
    s.out(op, [ax.resolve(t) for t in (*index[:-1], *data[batch + depth :])])


def _depth(index: Axis) -> int:
    depth = ax.static(index[-1]) if index else None
    if depth is None:
        raise Opaque("symbolic-size")
    return depth


def scatter_nd(op: Op, s: Solver) -> None:
    """data [d1..dk, rest..], indices [picks.., k], updates [picks.., rest..]."""
    data, index, updates = s.need(op, 0), s.need(op, 1), s.need(op, 2)
    depth, picks = _depth(index), len(index) - 1
    for t in (*data[:depth], index[-1]):
        s.pin(op, t, INDEX)
    _last_one_wins(op, s, *index[:-1])
    for a, b in zip(updates, (*index[:-1], *data[depth:])):
        s.unify(op, a, b)
    s.out(op, [ax.resolve(t) for t in (*data[:depth], *updates[picks:])])


def tensor_scatter(op: Op, s: Solver) -> None:
    """A cache [batch, .., length, ..] and an update that is written into it at write_indices [batch]."""
    cache, update, start = s.need(op, 0), s.need(op, 1), s.operand(op, 2)
    axis = axis_in(op, attr_int(op, "axis", -2), len(cache))
    for i, (a, b) in enumerate(zip(cache, update)):
        if i != axis:
            s.unify(op, a, b)
    for t in (cache[axis], update[axis]):
        s.pin(op, t, "time")
    if start:
        s.unify(op, cache[0], start[0])
    s.out(op, [ax.resolve(t) for t in cache])


def one_hot(op: Op, s: Solver) -> None:
    """indices, depth, [off, on]: a new axis of positions that the indices name."""
    index = s.need(op, 0)
    numbers(op, s, 1)
    axis = axis_in(op, attr_int(op, "axis", -1), len(index) + 1)
    made = s.pinned(op, s.shape(op.results[0])[axis], INDEX)
    s.out(op, [*index[:axis], made, *index[axis:]])


def compress(op: Op, s: Solver) -> None:
    """The positions of an axis (of the flattened tensor without `axis`) where a condition holds."""
    x = s.need(op, 0)
    if "axis" not in op.attrs:
        raise Opaque(INDEX)
    axis = axis_in(op, attr_int(op, "axis"), len(x))
    s.pin(op, x[axis], INDEX)
    for t in s.operand(op, 1) or ():
        s.pin(op, t, INDEX)
    s.out(op, [s.pinned(op, d, INDEX) if i == axis else x[i] for i, d in enumerate(s.shape(op.results[0]))])


def loss(op: Op, s: Solver) -> None:
    """scores [N, C, d..], labels [N, d..], weights [C]; labels name classes. The second result is log(softmax)."""
    scores, labels = s.need(op, 0), s.need(op, 1)
    s.pin(op, scores[1], INDEX)
    for t in s.operand(op, 2) or ():
        s.pin(op, t, INDEX)
    for a, b in zip((scores[0], *scores[2:]), labels):
        s.unify(op, a, b)
    whole = attr_text(op, "reduction", "mean") == "none"
    s.out(op, [ax.resolve(t) for t in labels] if whole else [])
    s.out(op, [ax.resolve(t) for t in scores], 1)


def top_k(op: Op, s: Solver) -> None:
    """The largest values along an axis and where they were, in the order of their size."""
    x = s.need(op, 0)
    numbers(op, s, 1)
    axis = axis_in(op, attr_int(op, "axis", -1), len(x))
    s.pin(op, x[axis], "index-leaks")
    for index, value in enumerate(op.results):
        dims = s.shape(value)
        s.out(op, [s.pinned(op, dims[i], "generated-order") if i == axis else t for i, t in enumerate(x)], index)


def arg_reduce(op: Op, s: Solver) -> None:
    """ArgMax, ArgMin: the index leaks."""
    x = s.need(op, 0)
    axis = axis_in(op, attr_int(op, "axis"), len(x))
    s.pin(op, x[axis], "index-leaks")
    keep = attr_int(op, "keepdims", 1)
    s.out(op, [ONE if i == axis else t for i, t in enumerate(x) if keep or i != axis])


def hardmax(op: Op, s: Solver) -> None:
    """One at the first largest position of an axis: which one is first depends on the order."""
    x = s.need(op, 0)
    s.pin(op, x[axis_in(op, attr_int(op, "axis", -1), len(x))], "index-leaks")
    s.out(op, [ax.resolve(t) for t in x])
