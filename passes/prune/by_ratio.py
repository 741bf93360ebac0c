"""Structured pruning by ratio: groups are found and scored, their units allotted, and the result is tried out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...ir.axes import Axes, Index, analyse
from ...ir.core import Module, Value
from ...ir.ops.axes_rules_norm import COUNT
from ...ir.ops.axes_rules_resize import CannotResize
from ...ir.rewrite import Rewriter
from ..base import Context, SkipCode, Skipped
from .allocate import ALLOCATIONS, Demand
from .criteria import Scores
from .fit.fit_sites import fit_sites, scarce
from .fit.reconstruct import reserve_biases
from .groups import Group, nests
from .overrides import resolve
from .plans import GroupPlan, PrunePlan, with_totals
from .ranges import ranges
from .scoring import score
from .surgery import remove_units
from .work import Work, batch_of_one

if TYPE_CHECKING:
    from .structured import Prune


def plan_by_ratio(
    step: Prune, module: Module, axes: Axes, groups: list[Group], skipped: list[Skipped], ctx: Context
) -> PrunePlan:
    """Which units of every group go. A group whose sizes cannot follow is left out, and the rest allotted again."""
    assert step.ratio is not None
    work = Work(module, axes, ctx.dims) if step.allocation == "flops" else None
    own, overridden = _own_ratios(step, module, groups)
    idle = step.ratio == 0 and not any(own.values())  # a search asks for this first: nothing needs scores
    scores, told = ({}, []) if idle else score(step.criterion, module, axes, groups, ctx)
    while True:
        demand = Demand(groups, scores, step.ratio, step.multiple, own, work)
        kept = {} if idle else ALLOCATIONS[step.allocation](demand)
        kept = {c: units for c, units in kept.items() if len(units) < _size(groups, c)}
        try:
            twin, changed = _trial(module, kept, step.name)
            break
        except CannotResize as refusal:
            refused = refusal.classes or frozenset(kept)
            skipped += [_stuck(g, refusal) for g in groups if g.id in refused]
            groups = [g for g in groups if g.id not in refused]
    plans = tuple(_group_plan(g, kept[g.id], scores[g.id]) for g in groups if g.id in kept)
    asked = {g.id: own.get(g.id, step.ratio if step.allocation == "uniform" else 0) for g in groups}
    skipped += [_too_small(g) for g in groups if g.id not in kept and asked[g.id] > 0]
    notes = [f"{len(plans)} of {len(groups)} prunable groups lose units", *told, *overridden]
    notes += [*_compounds(module, axes, groups, plans), *_counted(groups, plans)]
    if step.fits(ctx):
        sites, left = fit_sites(twin, module, changed, ctx.max_memory)
        reserve_biases(Rewriter(twin, by=step.name), sites)
        skipped += left
        samples = len(ctx.data or ())
        notes.append(f"{len(sites)} operators that read them are fitted to {samples} sample(s)")
        notes += scarce(sites, samples, batch_of_one(twin, ctx.dims))
    if work is not None:
        notes.append(_saved(work, step.ratio, {g.id: g.after for g in plans}))
    return with_totals(PrunePlan(tuple(skipped), tuple(notes), plans), module, twin)


def _own_ratios(step: Prune, module: Module, groups: Sequence[Group]) -> tuple[dict[int, float], list[str]]:
    """The groups that `overrides` gives a ratio of their own, and notes."""
    found = resolve(step.entries(), module, step.name)
    ratios = {g.id: found.ratio(g.producers or g.holders, g.site) for g in groups}
    return {c: r for c, r in ratios.items() if r is not None}, found.check(step.name)


def _trial(module: Module, kept: Mapping[int, Index], by: str) -> tuple[Module, list[Value]]:
    """The pruned module, on a copy whose sliced weights are not made before they are read; and what was sliced."""
    twin = module.clone()
    return twin, remove_units(Rewriter(twin, by=by), analyse(twin), kept) if kept else []


def _size(groups: Sequence[Group], c: int) -> int:
    return next(g.size for g in groups if g.id == c)


def _group_plan(g: Group, kept: Index, scores: Scores) -> GroupPlan:
    removed = np.setdiff1d(np.arange(g.size), kept)
    return GroupPlan(
        g.id, g.site, g.size, len(kept), ranges(removed), tuple(dict.fromkeys(s.constant for s in g.axis_class.sites)),
        _digits(scores[kept].min()), _digits(scores[removed].max()),
    )  # fmt: skip


def _digits(score: float) -> float:
    return float(f"{score:.4g}")


def _too_small(g: Group) -> Skipped:
    return Skipped(g.place, SkipCode.TOO_SMALL, f"{g.size} units: the ratio rounds to none of them")


def _stuck(g: Group, refusal: CannotResize) -> Skipped:
    op = refusal.op
    return Skipped(g.place, SkipCode.PINNED_AXIS, f"{op.kind} {op.loc}: {refusal.why}")


def _compounds(module: Module, axes: Axes, groups: Sequence[Group], plans: Sequence[GroupPlan]) -> list[str]:
    """Where units lose units of their own: what is left of both together."""
    sizes = {p.id: (p.before, p.after) for p in plans}
    names = {g.id: g.axis_class.name for g in groups}
    found = dict.fromkeys(tuple(nest) for nest in nests(module, axes, sizes) if len(nest) > 1)
    notes = []
    for nest in found:
        before, after = (math.prod(sizes[c][i] for c in nest) for i in (0, 1))
        parts = " x ".join(f"{names[c]} {sizes[c][0]} to {sizes[c][1]}" for c in nest)
        notes.append(f"units inside units: {parts}, together {after / before:.1%} of {before} positions stay")
    return notes


def _counted(groups: Sequence[Group], plans: Sequence[GroupPlan]) -> list[str]:
    """What norms and means make of fewer units."""
    lost = {p.id: p for p in plans}
    return [
        f"{lost[g.id].before} to {lost[g.id].after} units enter {g.axis_class.marks[COUNT].kind} "
        f"{g.axis_class.marks[COUNT].where}: means and RMS norms are scaled to count all of them, "
        "other norms and softmaxes run over those that stay"
        for g in groups
        if g.id in lost and COUNT in g.axis_class.marks
    ]


def _saved(work: Work, ratio: float, counts: Mapping[int, int]) -> str:
    """What an allocation by MACs came to."""
    before, after = work.total({}), work.total(counts)
    saved = 1 - after / before if before else 0.0
    told = f"{saved:.1%} of the model's MACs are removed ({before} to {after}), {ratio:.1%} were asked for"
    return told if saved >= ratio else f"{told}: the groups that can lose units hold no more"
