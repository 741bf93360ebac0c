"""`smooth`: moves outliers of activations into weights, so that both can be rounded to 8 bits. Outputs stay equal.

    smooth = mlc.passes.Smooth()(module, mlc.Context(data=mlc.open_data("x.npz", module), runner=OrtRunner()))

SmoothQuant (Xiao et al., 2023): the inputs of a linear operator are divided channel by channel, and its weights
multiplied. Here every site chooses its numbers by the error of its own rounded product (smooth_search.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ...ir.core import Module, Op
from ...ir.rewrite import Rewriter
from ..base import EXACT, Context, Done, Effect, Need, Pass, SkipCode, Skipped, option, site_name
from ..linear import Convolution
from .prepare import Prepared, prepare
from .repeats import repeats
from .scaling import ScalingPlan, ScalingSite, axes_of, blocked, divide, scaling_sites
from .smooth_samples import Seen, watch
from .smooth_search import Search

#: The share of the error, and of the energy of the product, that has to go. Folded numbers cost nothing, but every
#: choice fits the samples a little. A Mul costs time: this amount, times its elements for every output of the product.
_WORTH = {"mul": (0.3, 5e-4), "folded": (0.05, 1e-5)}


@dataclass(frozen=True)
class SmoothSite:
    """Inputs that are divided by the same numbers, the operators that read them, and the relative error of their
    products in 8 bits before and after. `folded`: the layers before take the division up; else a Mul divides."""

    name: str
    readers: tuple[str, ...]
    folded: bool
    choice: str
    before: float
    after: float
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class SmoothPlan(ScalingPlan):
    sites: tuple[SmoothSite, ...] = ()


@dataclass(frozen=True)
class Smooth(Pass):
    """Divides inputs of linear operators channel by channel and multiplies the weights, so that 8 bits suffice.

    s_j = max|X_j|^alpha / max|W_j|^(1-alpha) over all operators that share the input; the division moves into the
    layer or norm before where nothing else reads it, and is one Mul in front of the readers where that pays. Without
    `alpha` each site takes the numbers with which its product in 8 bits has the least error, token by token. Batch
    normalizations and constants are folded into the weights first.
    """

    name: ClassVar[str] = "smooth"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    effect: ClassVar[Effect] = EXACT
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune", "absorb", "equalize")

    alpha: float | None = option(
        None, unit="number", low=0.0, high=1.0, doc="how much moves into weights; left out: searched site by site"
    )
    mul: str = option(
        "auto",
        unit="name",
        choices=("auto", "always", "never"),
        doc="divide by a Mul where nothing takes the division up",
    )

    def plan(self, module: Module, ctx: Context) -> SmoothPlan:
        """Fold a copy, find the sites there, watch their inputs on the calibration data, and choose."""
        ready = Prepared.of(module, ctx, by=self.name)
        found = scaling_sites(axes_of(ready.module))
        problems = {site: self._problem(site, ready.module, ready.ctx) for site in found}
        chosen: dict[ScalingSite, SmoothSite | Skipped] = {}
        searched = [s for s in found if problems[s] is None]
        for site, seen in watch(ready.module, searched, ready.ctx):
            chosen[site] = self._choose(site, seen, ready.ctx)
            if ctx.progress is not None:
                ctx.progress.advance("sites searched", len(chosen), len(searched))
        decided = [problems[site] or chosen[site] for site in found]
        sites = tuple(d for d in decided if isinstance(d, SmoothSite))
        notes = (*ready.notes, *repeats(ctx.data)) if sites else ()
        return SmoothPlan(tuple(d for d in decided if isinstance(d, Skipped)), notes, sites)

    def _problem(self, site: ScalingSite, module: Module, ctx: Context) -> Skipped | None:
        """Why a site is left alone without a look at the data."""
        ops = [r.op for r in site.readers]
        if not ctx.scope.allows_group(ops) or any(ctx.scope.excludes(op) for op in _makers(site)):
            return Skipped(site.name, SkipCode.SCOPE, "outside the scope of the step")
        if any(value.home is not module.graph for value in site.positions):
            return Skipped(site.name, SkipCode.CONTROL_FLOW, "its inputs are made in the body of an operator")
        reason = _unrounded(site, ctx)
        if reason:
            return Skipped(site.name, SkipCode.UNSUPPORTED, reason)
        if site.folded:
            return None
        if shared := blocked(site):
            return Skipped(site.name, SkipCode.SHARED, shared)
        if self.mul == "never":
            return Skipped(site.name, SkipCode.PINNED_AXIS, _TIED, "smooth(mul=always) inserts a Mul")
        if self.mul == "auto" and any(isinstance(r, Convolution) for r in site.readers):
            told = f"{_TIED}, and a Mul would part two convolutions in 8 bits"
            return Skipped(site.name, SkipCode.PINNED_AXIS, told, "smooth(mul=always) inserts one")
        return None

    def _choose(self, site: ScalingSite, seen: Seen, ctx: Context) -> SmoothSite | Skipped:
        problem = _unusable(seen)
        if problem is not None:
            return Skipped(site.name, *problem)
        before, best = Search(site, seen, ctx.target.weight_bits if ctx.target is not None else 8).best(self.alpha)
        kind: Literal["folded", "mul"] = "folded" if site.folded else "mul"
        if why := self._hurts(kind, before, best.error, 1.0 if site.folded else _elements_per_output(site)):
            return Skipped(site.name, SkipCode.HURTS, f"{why} ({best.name})")
        numbers = tuple(float(x) for x in best.numbers)
        readers = tuple(site_name(r.op) for r in site.readers)
        return SmoothSite(site.name, readers, site.folded, best.name, _short(before), _short(best.error), numbers)

    def _hurts(self, kind: Literal["folded", "mul"], before: float, after: float, price: float) -> str:
        """Why the best candidate is not worth it; empty if it is."""
        share, amount = (0.0, 0.0) if kind == "mul" and self.mul == "always" else _WORTH[kind]
        if before - after > max(share * before, amount * price):
            return ""
        told = f"error in 8 bits {before:.2g}, with the best numbers {after:.2g}"
        return told if kind == "folded" or self.mul == "always" else f"{told}: not worth a Mul"

    def apply(self, rw: Rewriter, plan: SmoothPlan, ctx: Context) -> list[Done]:
        if not plan.sites:
            return []
        prepare(rw, ctx)
        axes = axes_of(rw.module)
        sites = {tuple(site_name(r.op) for r in site.readers): site for site in scaling_sites(axes)}
        done = []
        for planned in plan.sites:
            divide(rw, axes, sites[planned.readers], np.array(planned.numbers))
            where = "folded" if planned.folded else "by a Mul"
            after = f"error {planned.after:.2g}, {planned.choice}, {where}"
            done.append(Done(planned.name, f"error {planned.before:.2g}", after))
        return done


_TIED = "nothing before it can take the division up"


def _elements_per_output(site: ScalingSite) -> float:
    return site.count / sum(r.shape[0] * r.shape[1] for r in site.readers)


def _short(error: float) -> float:
    return float(f"{error:.4g}")


def _makers(site: ScalingSite) -> Iterator[Op]:
    """The operators whose constants would change besides those of the readers."""
    if site.cells is not None:
        for value, _ in site.cells.direction.sides:
            yield from value.users if value.constant is not None else ()


def _unrounded(site: ScalingSite, ctx: Context) -> str:
    """Why the target will not run any reader on 8-bit inputs; empty if it runs one."""
    if ctx.target is None:
        return ""
    answers = [ctx.target.supports(r.op, form) for r in site.readers for form in ("static", "dynamic")]
    return "" if any(answers) else answers[0].reason


def _unusable(seen: Seen) -> tuple[SkipCode, str] | None:
    if any(not rows for rows in seen.rows.values()):
        return SkipCode.NO_DATA, "no sample reaches it"
    bounds: Sequence[tuple[Any, Any]] = [seen.bounds(value) for value in seen.ranges]
    if not all(np.isfinite(low).all() and np.isfinite(high).all() for low, high in bounds):
        return SkipCode.HURTS, "its inputs hold Inf or NaN on the calibration data"
    if not any(low.any() or high.any() for low, high in bounds):
        return SkipCode.HURTS, "its inputs are zero on all of the calibration data"
    return None
