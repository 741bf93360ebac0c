"""Structured pruning: whole units (channels, neurons, heads, hidden states) leave every tensor they occur in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from ...ir import errors
from ...ir.axes import analyse
from ...ir.core import Module
from ...ir.errors import Code
from ...ir.ops.axes_rules_linear import INNER
from ...ir.ops.axes_rules_norm import COUNT
from ...ir.rewrite import Rewriter
from ..base import LOSSY, Context, Done, Effect, Need, Pass, SkipCode, Skipped, option
from .allocate import ALLOCATIONS
from .by_ratio import plan_by_ratio
from .fit.reconstruct import outputs_kept, reconstruct
from .fit.saliency import DATA_CRITERIA
from .groups import NESTS, PARTLY, UNMADE, find_groups
from .overrides import Override, parse, to_text
from .plans import GroupPlan, PrunePlan, with_totals
from .ranges import parse_ranges
from .scoring import CHOICES, chosen
from .sparse.unstructured import SparsePlan, apply_sparse, check_options, pattern_of, plan_sparse
from .surgery import remove_units

STRONGEST = 0.95  # the ratio at strength 1
#: Arguments that say which units a ratio takes, and what becomes of the others.
_OF_RATIOS = ("allocation", "criterion", "reconstruct", "penalty", "overrides", "nested", "widths")


@dataclass(frozen=True)
class Prune(Pass):
    """Remove whole units (without a ratio only those that change no output), or set single weights to zero."""

    name: ClassVar[str] = "prune"
    effect: ClassVar[Effect] = LOSSY

    ratio: float | None = option(
        None, unit="ratio", doc="fraction of units removed in every prunable group; left out: only redundant ones",
        low=0.0, high=1.0, positional=True,
    )  # fmt: skip
    allocation: Literal["uniform", "global", "flops"] = option(
        "uniform", unit="name",
        doc="the same fraction of every group, of all units together, or of the model's MACs",
        choices=tuple(ALLOCATIONS),
    )  # fmt: skip
    criterion: Literal["auto", "l2", "l1", "group", "fpgm", "random", "obs", "activation", "redundancy"] = option(
        "auto", unit="name",
        doc="what a unit is worth, by its weights (l2, l1, group, fpgm, random) or by what its consumers make of it "
        "on data (obs, activation, redundancy); auto: obs with data, else group",
        choices=CHOICES,
    )  # fmt: skip
    reconstruct: Literal["auto", "off", "lstsq"] = option(
        "auto", unit="name",
        doc="fit what is left to the whole model, layer by layer; auto: lstsq with data, else off",
        choices=("auto", "off", "lstsq"),
    )  # fmt: skip
    penalty: float = option(
        0.01, unit="number", doc="ridge of the fit toward the cut weights, in mean variances of the inputs",
        low=1e-8, high=1e6,
    )  # fmt: skip
    multiple: int = option(
        16,
        unit="int",
        doc="widths are multiples of this; of at most 8 below 32 units, 4 below 16, any below 8",
        low=1,
        high=256,
    )

    nested: Literal["outer", "inner", "both"] = option(
        "outer", unit="name",
        doc="of units inside units (heads and the width of each): the outer ones, the inner ones, or both",
        choices=NESTS,
    )  # fmt: skip
    widths: bool = option(
        False, unit="bool", doc="also the widths that norms, means and softmaxes run over, such as that of an embedding"
    )
    overrides: str | Mapping[str, float] = option(
        "", unit="str", doc="ratios of their own for what patterns name, later ones first: 'layer4/**: 20%, head: 0%'",
    )  # fmt: skip

    kind: str = option(
        "structured", unit="word",
        doc="structured: whole units; unstructured: single weights become zero; N:M such as 2:4: N of every M stay",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if isinstance(self.overrides, Mapping):
            object.__setattr__(self, "overrides", to_text(self.overrides, f"{self.name}.overrides"))
        super().__post_init__()
        self.entries()
        check_options(self)
        if self.penalty != type(self).penalty and self.reconstruct == "off":
            raise errors.error(
                Code.CANNOT_HONOUR, f"'{self.name}': penalty with reconstruct=off",
                help="it belongs to the fit: reconstruct=lstsq",
            )  # fmt: skip

    @property
    def free(self) -> tuple[str, ...]:
        """A pattern N:M is a ratio by itself."""
        return () if pattern_of(self.kind) else super().free

    def entries(self) -> tuple[Override, ...]:
        """What `overrides` says."""
        return parse(str(self.overrides), f"{self.name}.overrides")

    def admitted(self) -> frozenset[str]:
        """The marks of classes that lose units all the same."""
        return frozenset({COUNT} if self.widths else ()) | frozenset({INNER} if self.nested != "outer" else ())

    def wants(self) -> frozenset[Need]:
        fitted = self.reconstruct == "lstsq" or self.penalty != type(self).penalty
        told = self.criterion in DATA_CRITERIA or fitted
        return frozenset({Need.DATA}) if told else frozenset()

    @property
    def learns(self) -> bool:
        if self.kind != "structured":
            return self.criterion in ("auto", "activation")
        return self.reconstruct != "off" or chosen(self.criterion, data=True) in DATA_CRITERIA

    def fits(self, ctx: Context) -> bool:
        """Whether weights are fitted to data after the cut."""
        return self.reconstruct == "lstsq" or (self.reconstruct == "auto" and ctx.data is not None)

    def at(self, strength: float) -> Self:
        """The ratio grows with the strength; an explicit one stays."""
        return replace(self, ratio=strength * STRONGEST) if self.free else self

    def plan(self, module: Module, ctx: Context) -> PrunePlan | SparsePlan:
        return self._plan_units(module, ctx) if self.kind == "structured" else plan_sparse(self, module, ctx)

    def _plan_units(self, module: Module, ctx: Context) -> PrunePlan:
        axes = analyse(module)
        nested = "both" if self.ratio is None else self.nested
        groups, skipped = find_groups(module, axes, ctx.scope, nested=nested, admit=self.admitted())
        if not groups and ctx.scope.explicit and not ctx.tentative:
            raise errors.error(
                Code.CANNOT_HONOUR,
                f"'{self.name}' can remove nothing of what {ctx.scope.text or 'the selector'} names",
                help="; ".join(dict.fromkeys(s.why for s in skipped if s.code is not SkipCode.SCOPE))
                or _partly(skipped),
            )
        if self.ratio is None:
            self._refuse_idle()
            return self._plan_exact(module, skipped, ctx)
        return plan_by_ratio(self, module, axes, groups, skipped, ctx)

    def _refuse_idle(self) -> None:
        """Options that say how a ratio is distributed say nothing without one."""
        idle = [name for name in _OF_RATIOS if getattr(self, name) != getattr(Prune, name)]
        if idle:
            raise errors.error(
                Code.CANNOT_HONOUR, f"'{self.name}': {', '.join(idle)} without a ratio",
                help="give a ratio as well, such as prune(30%, widths=true), or data or a bound to choose it by; "
                "with overrides 0% prunes what they name",
            )  # fmt: skip

    def _plan_exact(self, module: Module, skipped: list[Skipped], ctx: Context) -> PrunePlan:
        from .exact.lossless import find_rounds

        twin = module.clone()
        rounds, left = find_rounds(twin, ctx.scope, self.name, self.multiple)
        plan = PrunePlan((*skipped, *left), ("only units that change no output were looked for",), rounds=rounds)
        return with_totals(plan, module, twin)

    def apply(self, rw: Rewriter, plan: PrunePlan | SparsePlan, ctx: Context) -> Sequence[Done]:
        if isinstance(plan, SparsePlan):
            return apply_sparse(self, rw, plan, ctx)
        if plan.rounds:
            from .exact.lossless import replay

            replay(rw, plan.rounds, ctx.scope)
            return [d for r in plan.rounds for d in r.done()]
        if not plan.groups:
            return ()
        axes = analyse(rw.module)
        sizes = {c.id: c.size for c in axes.classes}
        kept = {g.id: np.setdiff1d(np.arange(g.before), parse_ranges(g.removed)) for g in plan.groups}
        assert all(sizes.get(g.id) == g.before for g in plan.groups), "the plan belongs to another module"
        before = {g.id: _bytes(rw.module, g) for g in plan.groups}
        dense, cut = rw.module.clone(), outputs_kept(axes, kept)
        changed = remove_units(rw, axes, kept)
        done = [
            Done(g.site, f"{g.before} units", f"{g.after} units", before[g.id] - _bytes(rw.module, g))
            for g in plan.groups
        ]
        return [*done, *(reconstruct(rw, dense, changed, cut, self.penalty, ctx) if self.fits(ctx) else ())]


def _partly(skipped: Sequence[Skipped]) -> str:
    near = next((f": {s.site}" for why in (PARTLY, UNMADE) for s in skipped if s.why == why), "")
    return f"select every operator that makes the units{near}; layers that are added together lose units together"


def _bytes(module: Module, g: GroupPlan) -> int:
    return sum(c.nbytes for name in g.constants if (c := module.constants[name].constant) is not None)
