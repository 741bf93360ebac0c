"""Structured pruning: whole units (channels, neurons, heads, hidden states) leave every tensor they occur in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from ...ir import dims as _dims
from ...ir import errors
from ...ir.axes import Axes, Index, analyse
from ...ir.core import Module
from ...ir.cost import module_cost
from ...ir.errors import Code
from ...ir.ops.axes_rules_resize import CannotResize
from ...ir.rewrite import Rewriter
from ..base import LOSSY, Context, Done, Effect, Pass, Plan, SkipCode, Skipped, option
from ..cleanup import drop_dead
from .allocate import ALLOCATIONS
from .criteria import CRITERIA, Scores
from .groups import Group, find_groups
from .ranges import parse_ranges, ranges
from .removal import Round
from .surgery import remove_units

STRONGEST = 0.95  # the ratio at strength 1


@dataclass(frozen=True)
class GroupPlan:
    """What one group loses. `removed` are ranges of old unit numbers: "3, 8-11"."""

    id: int
    site: str
    before: int
    after: int
    removed: str
    constants: tuple[str, ...]
    lowest_kept: float | None = None  # scores, mean 1 in the group
    highest_removed: float | None = None


@dataclass(frozen=True)
class PrunePlan(Plan):
    """`groups` by ratio, or `rounds` of exact removals; the totals are those of the result."""

    groups: tuple[GroupPlan, ...] = ()
    rounds: tuple[Round, ...] = ()
    parameters: tuple[int, int] = (0, 0)  # before, after
    weight_bytes: tuple[int, int] = (0, 0)
    macs: tuple[str, str] = ("", "")  # may hold symbols


@dataclass(frozen=True)
class Prune(Pass):
    """Remove whole units from every tensor that holds them; without a ratio only those that change no output."""

    name: ClassVar[str] = "prune"
    effect: ClassVar[Effect] = LOSSY

    ratio: float | None = option(
        None, unit="ratio", doc="fraction of units removed in every prunable group; left out: only redundant ones",
        low=0.0, high=1.0, positional=True,
    )  # fmt: skip
    allocation: Literal["uniform", "global"] = option(
        "uniform", unit="name", doc="the same fraction of every group, or the least important units anywhere",
        choices=tuple(ALLOCATIONS),
    )  # fmt: skip
    criterion: Literal["l2", "l1", "fpgm", "random"] = option(
        "l2", unit="name", doc="what a unit is worth: norm over all its slices, distance from the median, chance",
        choices=tuple(CRITERIA),
    )  # fmt: skip
    multiple: int = option(
        16,
        unit="int",
        doc="widths are multiples of this; of at most 8 below 32 units, 4 below 16, any below 8",
        low=1,
        high=256,
    )

    def at(self, strength: float) -> Self:
        """The ratio grows with the strength; an explicit one stays."""
        return self if self.ratio is not None else replace(self, ratio=strength * STRONGEST)

    def plan(self, module: Module, ctx: Context) -> PrunePlan:
        axes = analyse(module)
        groups, skipped = find_groups(module, axes, ctx.scope, nested=self.ratio is None)
        if not groups and ctx.scope.explicit:
            raise errors.error(
                Code.CANNOT_HONOUR,
                f"'{self.name}' can remove nothing of what {ctx.scope.text or 'the selector'} names",
                help="; ".join(dict.fromkeys(s.why for s in skipped if s.code is not SkipCode.SCOPE))
                or "select every producer of a group: layers that are added together lose units together",
            )
        if self.ratio is None:
            return self._plan_exact(module, skipped, ctx)
        return self._plan_ratio(module, axes, groups, skipped, ctx)

    def _plan_ratio(
        self, module: Module, axes: Axes, groups: list[Group], skipped: list[Skipped], ctx: Context
    ) -> PrunePlan:
        assert self.ratio is not None
        scores = {g.id: CRITERIA[self.criterion](module, axes, g.axis_class, ctx.rng("prune", g.id)) for g in groups}
        while True:
            kept = ALLOCATIONS[self.allocation](groups, scores, self.ratio, self.multiple)
            kept = {c: units for c, units in kept.items() if len(units) < _size(groups, c)}
            try:
                twin = _trial(module, kept)
                break
            except CannotResize as refusal:
                refused = refusal.classes or frozenset(kept)
                skipped += [_stuck(g, refusal) for g in groups if g.id in refused]
                groups = [g for g in groups if g.id not in refused]
        plans = tuple(_group_plan(g, kept[g.id], scores[g.id]) for g in groups if g.id in kept)
        if self.ratio > 0:
            skipped += [_too_small(g) for g in groups if g.id not in kept and self.allocation == "uniform"]
        return _with_totals(PrunePlan(tuple(skipped), _notes(groups, plans), plans), module, twin)

    def _plan_exact(self, module: Module, skipped: list[Skipped], ctx: Context) -> PrunePlan:
        from .lossless import find_rounds

        twin = module.clone()
        rounds, left = find_rounds(twin, ctx.scope, self.name, self.multiple)
        plan = PrunePlan((*skipped, *left), ("only units that change no output were looked for",), rounds=rounds)
        return _with_totals(plan, module, twin)

    def apply(self, rw: Rewriter, plan: PrunePlan, ctx: Context) -> Sequence[Done]:
        if plan.rounds:
            from .lossless import replay

            replay(rw, plan.rounds, ctx.scope)
            return [d for r in plan.rounds for d in r.done()]
        if not plan.groups:
            return ()
        axes = analyse(rw.module)
        sizes = {c.id: c.size for c in axes.classes}
        kept = {g.id: np.setdiff1d(np.arange(g.before), parse_ranges(g.removed)) for g in plan.groups}
        assert all(sizes.get(g.id) == g.before for g in plan.groups), "the plan belongs to another module"
        before = {g.id: _bytes(rw.module, g) for g in plan.groups}
        remove_units(rw, axes, kept)
        return [
            Done(g.site, f"{g.before} units", f"{g.after} units", before[g.id] - _bytes(rw.module, g))
            for g in plan.groups
        ]


def _trial(module: Module, kept: Mapping[int, Index]) -> Module:
    """The pruned module, on a copy whose sliced weights are not made before they are read."""
    twin = module.clone()
    if kept:
        remove_units(Rewriter(twin, by=Prune.name), analyse(twin), kept)
    return twin


def _size(groups: Sequence[Group], c: int) -> int:
    return next(g.size for g in groups if g.id == c)


def _group_plan(g: Group, kept: Index, scores: Scores) -> GroupPlan:
    removed = np.setdiff1d(np.arange(g.size), kept)
    return GroupPlan(
        g.id, g.site, g.size, len(kept), ranges(removed), tuple(dict.fromkeys(s.constant for s in g.axis_class.sites)),
        round(float(scores[kept].min()), 6), round(float(scores[removed].max()), 6),
    )  # fmt: skip


def _too_small(g: Group) -> Skipped:
    return Skipped(g.place, SkipCode.TOO_SMALL, f"{g.size} units: the ratio rounds to none of them")


def _stuck(g: Group, refusal: CannotResize) -> Skipped:
    op = refusal.op
    return Skipped(g.place, SkipCode.PINNED_AXIS, f"{op.kind} {op.loc}: {refusal.why}")


def _notes(groups: Sequence[Group], plans: Sequence[GroupPlan]) -> tuple[str, ...]:
    return (f"{len(plans)} of {len(groups)} prunable groups lose units",)


def _with_totals(plan: PrunePlan, before: Module, after: Module) -> PrunePlan:
    a = b = module_cost(before)
    if plan.groups or plan.rounds:
        drop_dead(Rewriter(after))
        b = module_cost(after)
    return replace(
        plan,
        parameters=(a.parameters, b.parameters),
        weight_bytes=(a.weight_bytes, b.weight_bytes),
        macs=(amount(a.macs), amount(b.macs)),
    )


def amount(dim: _dims.Dim) -> str:
    """An amount as text. Unknown sizes have no names that two runs share."""
    return re.sub(r'"?\?\w+"?', "?", str(dim))


def _bytes(module: Module, g: GroupPlan) -> int:
    return sum(c.nbytes for name in g.constants if (c := module.constants[name].constant) is not None)
