"""Axis rules of normalizations, reductions, softmax and pooling.

All of them are symmetric in the positions they sum over. Those whose value depends on *how many* there are mark the
axis as count-sensitive: a permutation leaves the function alone, removing units does not.
"""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Opaque, Solver
from ..axis_types import ONE
from ..core import Op
from .access import attr_int, attr_ints, axes_in, axis_in, ints
from .axes_rules_linear import broadcast
from .axes_rules_operands import numbers

COUNT = "count-sensitive"


def batch_norm(op: Op, s: Solver) -> None:
    if attr_int(op, "training_mode"):
        raise Opaque("unknown-option")
    _per_channel(op, s, (1, 2, 3, 4))


def instance_norm(op: Op, s: Solver) -> None:
    """Symmetric in space, over which the statistics run."""
    _per_channel(op, s, (1, 2))
    for t in s.need(op, 0)[2:]:
        s.mark(op, t, COUNT)


def _per_channel(op: Op, s: Solver, slots: tuple[int, ...]) -> None:
    x = s.need(op, 0)
    for slot in slots:
        parameter = s.operand(op, slot)
        if parameter and len(x) > 1:
            broadcast(op, s, [(x[1],), parameter])
    s.out(op, [ax.resolve(t) for t in x])


def layer_norm(op: Op, s: Solver) -> None:
    """LayerNormalization, RMSNormalization: symmetric in the normalized axes, equivariant in all."""
    x = s.need(op, 0)
    axis = axis_in(op, attr_int(op, "axis", -1), len(x))
    for slot in (1, 2):
        parameter = s.operand(op, slot)
        if parameter:
            broadcast(op, s, [x, parameter])
    x = tuple(ax.resolve(t) for t in x)
    for t in x[axis:]:
        s.mark(op, t, COUNT)
    s.out(op, x)
    for index in range(1, len(op.results)):
        s.out(op, [*x[:axis], *(ONE for _ in x[axis:])], index)


def group_norm(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    channels, groups = ax.static(x[1]), attr_int(op, "num_groups", 1)
    if channels is None:
        raise Opaque("symbolic-size")
    g, inner = ax.atom(groups), ax.atom(channels // groups)
    s.unify(op, x[1], ax.prod((g, inner)))
    for slot in (1, 2):
        parameter = s.need(op, slot)
        s.unify(op, g if ax.size(parameter[0]) != channels else x[1], parameter[0])
    for t in (inner, *x[2:]):
        s.mark(op, t, COUNT)
    s.out(op, [ax.resolve(t) for t in x])


def softmax(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    if x:
        s.mark(op, x[axis_in(op, attr_int(op, "axis", -1), len(x))], COUNT)
    s.out(op, x)


def lp_norm(op: Op, s: Solver) -> None:
    s.out(op, s.need(op, 0))


def lrn(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    s.pin(op, x[1], "window-over-channels")
    s.out(op, [ax.resolve(t) for t in x])


def reduce(op: Op, s: Solver) -> None:
    _reduce(op, s, count=False)


def reduce_mean(op: Op, s: Solver) -> None:
    _reduce(op, s, count=True)


def _reduce(op: Op, s: Solver, *, count: bool) -> None:
    x = s.need(op, 0)
    wanted = attr_ints(op, "axes")
    if op.operand(1) is not None:
        numbers(op, s, 1)
        wanted = ints(op.operand(1))
        if wanted is None:
            raise Opaque("dynamic-axes")
    if not wanted and attr_int(op, "noop_with_empty_axes"):
        return s.out(op, x)
    axes = axes_in(op, wanted, len(x)) if wanted else tuple(range(len(x)))
    if count:
        for axis in axes:
            s.mark(op, x[axis], COUNT)
    keep = attr_int(op, "keepdims", 1)
    s.out(op, [ONE if i in axes else t for i, t in enumerate(x) if keep or i not in axes])


def mean_variance_norm(op: Op, s: Solver) -> None:
    """Symmetric in the normalized axes (batch and space unless `axes` says otherwise), equivariant in all."""
    x = s.need(op, 0)
    for axis in axes_in(op, attr_ints(op, "axes") or (0, 2, 3), len(x)):
        s.mark(op, x[axis], COUNT)
    s.out(op, x)
