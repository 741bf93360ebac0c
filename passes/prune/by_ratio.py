"""Structured pruning by ratio: groups are found and scored, their units allotted, and the result is tried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...ir.axes import Axes, Index, analyse
from ...ir.core import Module
from ...ir.ops.axes_rules_resize import CannotResize
from ...ir.rewrite import Rewriter
from ..base import Context, SkipCode, Skipped
from .allocate import ALLOCATIONS
from .criteria import CRITERIA, Scores
from .groups import Group
from .plans import GroupPlan, PrunePlan, with_totals
from .ranges import ranges
from .surgery import remove_units

if TYPE_CHECKING:
    from .structured import Prune


def plan_by_ratio(
    step: Prune, module: Module, axes: Axes, groups: list[Group], skipped: list[Skipped], ctx: Context
) -> PrunePlan:
    """Which units of every group go. A group whose sizes cannot follow is left out, and the rest allotted again."""
    assert step.ratio is not None
    scores = {g.id: CRITERIA[step.criterion](module, axes, g.axis_class, ctx.rng("prune", g.id)) for g in groups}
    while True:
        kept = ALLOCATIONS[step.allocation](groups, scores, step.ratio, step.multiple)
        kept = {c: units for c, units in kept.items() if len(units) < _size(groups, c)}
        try:
            twin = _trial(module, kept, step.name)
            break
        except CannotResize as refusal:
            refused = refusal.classes or frozenset(kept)
            skipped += [_stuck(g, refusal) for g in groups if g.id in refused]
            groups = [g for g in groups if g.id not in refused]
    plans = tuple(_group_plan(g, kept[g.id], scores[g.id]) for g in groups if g.id in kept)
    if step.ratio > 0:
        skipped += [_too_small(g) for g in groups if g.id not in kept and step.allocation == "uniform"]
    return with_totals(PrunePlan(tuple(skipped), _notes(groups, plans), plans), module, twin)


def _trial(module: Module, kept: Mapping[int, Index], by: str) -> Module:
    """The pruned module, on a copy whose sliced weights are not made before they are read."""
    twin = module.clone()
    if kept:
        remove_units(Rewriter(twin, by=by), analyse(twin), kept)
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
