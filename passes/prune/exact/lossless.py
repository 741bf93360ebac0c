"""Removing what changes no output: units that nobody reads, constant, duplicate and linearly dependent ones.

The units that stay take over what the consumers read of those that go (their columns are added up, constants move
into biases); then the columns of the units that go are zero, and the units are cut out. Removing them can make
others redundant, so it goes on in rounds; a round looks only at groups that the one before has touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.axes import Axes, AxisClass, analyse
from ....ir.core import Module, Op
from ....ir.ops.axes_rules_resize import CannotResize
from ....ir.rewrite import Rewriter
from ...base import Scope, Skipped
from ..groups import find_groups
from ..surgery import remove_units
from .removal import Removal, Round
from .search import Found, Search, examine, touching_ops
from .takeover import take_over

MOST_ROUNDS = 8


def find_rounds(module: Module, scope: Scope, by: str, multiple: int) -> tuple[tuple[Round, ...], list[Skipped]]:
    """Find and remove everything redundant in `module` itself; what was done, and what was not followed or stays."""
    rounds: list[Round] = []
    search = Search(multiple)
    settled: set[Op] = set()  # not changed since the groups that they touch were searched
    rw = Rewriter(module, by=by)
    while len(rounds) < MOST_ROUNDS:
        axes = analyse(module)
        touching = touching_ops(module, axes)
        groups, _ = find_groups(module, axes, scope, nested="both")
        found = search.find(module, axes, (g for g in groups if not settled.issuperset(touching[g.id])), touching)
        found = _resizable(module, axes, found, search)
        if not found:
            break
        settled = set(module.walk()).difference(*(touching[f.group.id] for f in found))
        _carry_out(rw, found)
        rounds.append(Round(tuple(f.plan for f in found)))
    return tuple(rounds), [*search.not_followed.values(), *search.spared.values()]


def replay(rw: Rewriter, rounds: Sequence[Round], scope: Scope) -> None:
    """Make the removals of a plan; what the units that stay take over is computed again."""
    for planned in rounds:
        axes = analyse(rw.module)
        touching = touching_ops(rw.module, axes)
        groups = {g.id: g for g in find_groups(rw.module, axes, scope, nested="both")[0]}
        chosen = []
        for wanted in planned.removals:
            c = _locate(rw.module, axes, wanted).id
            found = examine(rw.module, axes, groups[c], touching[c])
            assert found is not None, "the plan belongs to another module"
            chosen.append(found.sparing(np.setdiff1d(found.what.removed, wanted.units)))
        assert [f.plan for f in chosen] == list(planned.removals), "the plan belongs to another module"
        _carry_out(rw, chosen)


def _resizable(module: Module, axes: Axes, found: list[Found], search: Search) -> list[Found]:
    """Those that can be cut together, tried on a copy whose weights are not made."""
    while found:
        twin = module.clone()
        try:
            remove_units(Rewriter(twin), analyse(twin), {f.group.id: f.what.kept for f in found})
            break
        except CannotResize as refusal:
            refused = [f for f in found if not refusal.classes or f.group.id in refusal.classes]
            search.give_up(f.plan.key for f in refused)
            found = [f for f in found if f not in refused]
    return found


def _carry_out(rw: Rewriter, found: Sequence[Found]) -> None:
    for f in found:
        take_over(rw, f)
    axes = analyse(rw.module)
    remove_units(rw, axes, {_locate(rw.module, axes, f.plan).id: f.what.kept for f in found})


def _locate(module: Module, axes: Axes, r: Removal) -> AxisClass:
    types = axes.of(module.constants[r.constant])
    assert types is not None
    return axes.within(types[r.axis])[r.nth]
