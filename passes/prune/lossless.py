"""Removing what changes no output: units that nobody reads, constant, duplicate and linearly dependent ones.

The units that stay take over what the consumers read of those that go (their columns are added up, constants move
into biases); then the columns of the units that go are zero, and the units are cut out. Removing them can make
others redundant, so it goes on in rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from ...ir.axes import Axes, AxisClass, analyse
from ...ir.constants import Constant
from ...ir.core import Module, Op, Value
from ...ir.ops.axes_rules_resize import CannotResize
from ...ir.rewrite import Rewriter
from ..base import Scope, SkipCode, Skipped
from . import flow as fl
from .depend import Redundancy, columns, redundancy
from .groups import Group, find_groups
from .ranges import ranges
from .removal import Removal, Round
from .surgery import remove_units
from .trace import Consumer, NotTraced, Trace, trace

MOST_ROUNDS = 8


@dataclass(frozen=True)
class _Found:
    group: Group
    trace: Trace
    what: Redundancy
    plan: Removal


def find_rounds(module: Module, scope: Scope, by: str) -> tuple[tuple[Round, ...], list[Skipped]]:
    """Find and remove everything redundant in `module` itself; what was done, and the groups that were not followed."""
    rounds: list[Round] = []
    opaque: list[Skipped] = []
    stuck: set[tuple[str, int, int]] = set()
    rw = Rewriter(module, by=by)
    while len(rounds) < MOST_ROUNDS:
        axes = analyse(module)
        found, skipped = _find(module, axes, scope, stuck)
        opaque = skipped if not rounds else opaque
        if not found:
            break
        try:
            _check_sizes(module, axes, found)
        except CannotResize as refusal:
            stuck |= {_key(f.plan) for f in found if not refusal.classes or f.group.id in refusal.classes}
            continue
        _carry_out(rw, found)
        rounds.append(Round(tuple(f.plan for f in found)))
    return tuple(rounds), opaque


def replay(rw: Rewriter, rounds: Sequence[Round], scope: Scope) -> None:
    """Make the removals of a plan; what the units that stay take over is computed again."""
    for planned in rounds:
        wanted = {_key(r): r for r in planned.removals}
        axes = analyse(rw.module)
        only = frozenset(_locate(rw.module, axes, r).id for r in planned.removals)
        found, _ = _find(rw.module, axes, scope, frozenset(), only=only)
        chosen = [f for f in found if _key(f.plan) in wanted]
        assert [f.plan for f in chosen] == list(planned.removals), "the plan belongs to another module"
        _carry_out(rw, chosen)


def _key(r: Removal) -> tuple[str, int, int]:
    return r.constant, r.axis, r.nth


def _find(
    module: Module,
    axes: Axes,
    scope: Scope,
    stuck: Set[tuple[str, int, int]],
    *,
    only: frozenset[int] | None = None,
) -> tuple[list[_Found], list[Skipped]]:
    groups, _ = find_groups(module, axes, scope, nested=True)
    touching = _touching(module, axes)
    found, skipped = [], []
    for group in groups:
        if only is not None and group.id not in only:
            continue
        try:
            t = trace(module, axes, group.axis_class, touching[group.id])
        except NotTraced as reason:
            op = reason.op
            why = f"not searched for redundant units: {reason.why}, at {op.kind} {op.loc.origin or op.name}"
            skipped.append(Skipped(f"{group.site}:{group.axis_class.name}", SkipCode.NOT_FOLLOWED, why))
            continue
        what = redundancy(t)
        if what is not None:
            plan = _plan(module, axes, group, what)
            if _key(plan) not in stuck:
                found.append(_Found(group, t, what, plan))
    return found, skipped


def _touching(module: Module, axes: Axes) -> dict[int, list[Op]]:
    """For every class the ops that touch it, in program order."""
    found: dict[int, list[Op]] = {c.id: [] for c in axes.classes}
    for op in module.walk():
        classes = {c for v in (*op.operands, *op.results) if v is not None for c in axes.touched(v)}
        for c in classes:
            found[c].append(op)
    return found


def _plan(module: Module, axes: Axes, group: Group, what: Redundancy) -> Removal:
    site = group.axis_class.sites[0]
    types = axes.of(module.constants[site.constant])
    assert types is not None
    nth = axes.within(types[site.axis]).index(group.axis_class)
    return Removal(
        group.site, site.constant, site.axis, nth, group.size, len(what.kept), ranges(what.unread),
        ranges(what.constant), ranges(what.duplicate), ranges(what.dependent),
    )  # fmt: skip


def _check_sizes(module: Module, axes: Axes, found: Sequence[_Found]) -> None:
    """Try the cut on a copy whose weights are not made. Raises CannotResize."""
    twin = module.clone()
    remove_units(Rewriter(twin), analyse(twin), {f.group.id: f.what.kept for f in found})


def _carry_out(rw: Rewriter, found: Sequence[_Found]) -> None:
    for f in found:
        for consumer in dict.fromkeys(f.trace.consumers):
            if consumer.fold:
                _fold(rw, f, consumer)
        for weight in dict.fromkeys(c.weight for c in f.trace.consumers):
            _take_over(rw, f, next(c for c in f.trace.consumers if c.weight is weight))
    axes = analyse(rw.module)
    remove_units(rw, axes, {_locate(rw.module, axes, f.plan).id: f.what.kept for f in found})


def _locate(module: Module, axes: Axes, r: Removal) -> AxisClass:
    types = axes.of(module.constants[r.constant])
    assert types is not None
    return axes.within(types[r.axis])[r.nth]


def _take_over(rw: Rewriter, f: _Found, c: Consumer) -> None:
    """Add the columns of units that go to those of their carriers, and clear them."""
    constant = c.weight.constant
    assert constant is not None
    positions = fl.unit_positions(f.trace.units(c.weight, c.axis))
    removed, kept = positions[f.what.removed], positions[f.what.kept]
    weight = np.moveaxis(np.array(constant.array()), c.axis, 0)
    rest = weight.shape[1:]
    gone = weight[removed].astype(np.float64)  # [removed, m, ...]
    receives = np.nonzero(f.what.factors.any(axis=0))[0]
    if len(receives):
        added = np.einsum("rk,r...->k...", f.what.factors[:, receives], gone)
        weight[kept[receives]] = (weight[kept[receives]] + added).astype(weight.dtype)
    weight[removed.ravel()] = np.zeros(rest, weight.dtype)
    rw.set_constant(c.weight, Constant.of(np.ascontiguousarray(np.moveaxis(weight, 0, c.axis)), constant.dtype))


def _fold(rw: Rewriter, f: _Found, c: Consumer) -> None:
    """Move into the consumer's bias what removed units add whatever the input is."""
    removed, kept = f.what.removed, f.what.kept
    numbers = c.data.const[removed] - f.what.factors @ c.data.const[kept]
    reads = columns(f.trace, c)[removed].any(axis=1)
    if not (numbers * reads).any():
        return
    constant = c.weight.constant
    assert constant is not None
    outputs = 1 - c.axis if constant.type.rank == 2 else 0
    positions = fl.unit_positions(f.trace.units(c.weight, c.axis))[removed]
    taken = np.take(constant.array(), positions, axis=c.axis).astype(np.float64)
    summed = np.moveaxis(taken, (c.axis, c.axis + 1), (0, 1)).sum(axis=1)  # [removed, ...]
    column = outputs if outputs < c.axis else outputs - 1
    others = tuple(a + 1 for a in range(summed.ndim - 1) if a != column)
    delta = numbers @ summed.sum(axis=others)
    _add_bias(rw, c.op, delta, constant)


def _add_bias(rw: Rewriter, op: Op, delta: fl.Array, like: Constant) -> None:
    if op.kind == "MatMul":
        bias = rw.constant(Constant.of(delta, like.dtype), f"{op.name}_bias")
        result: Value = op.result
        users = result.users
        added = rw.insert("Add", [result, bias], before=_after(op), origin=op).result
        rw.replace_uses(result, added, only=users)
        return
    old = op.operand(2)
    if old is not None and old.constant is not None:
        delta = delta + old.constant.array().astype(np.float64)
        name = old.name
    elif old is not None:
        more = rw.constant(Constant.of(delta, like.dtype), f"{op.name}_bias")
        return rw.set_operand(op, 2, rw.insert("Add", [old, more], before=op).result)
    else:
        name = f"{op.name}_bias"
    rw.set_operand(op, 2, rw.constant(Constant.of(delta, like.dtype), name))


def _after(op: Op) -> Op:
    """The op that follows: the anchor of an insertion behind `op`."""
    assert op.parent is not None
    following = itertools.dropwhile(lambda o: o is not op, op.parent.ops)
    next(following)
    return next(following, op.parent.ret)
