"""What pruning decides, as plain data, and the sizes that come of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ...ir import dims as _dims
from ...ir.cleanup import drop_dead
from ...ir.core import Module
from ...ir.cost import module_cost
from ...ir.rewrite import Rewriter
from ..base import Plan
from .exact.removal import Round


@dataclass(frozen=True)
class GroupPlan:
    """What one group loses. `removed` are ranges of old unit numbers: "3, 8-11"."""

    id: int
    site: str
    before: int
    after: int
    removed: str
    constants: tuple[str, ...]
    lowest_kept: float | None = None  # scores: mean 1 in a group, with `obs` relative errors of consumers
    highest_removed: float | None = None


@dataclass(frozen=True)
class PrunePlan(Plan):
    """`groups` by ratio, or `rounds` of exact removals; the totals are those of the result."""

    groups: tuple[GroupPlan, ...] = ()
    rounds: tuple[Round, ...] = ()
    parameters: tuple[int, int] = (0, 0)  # before, after
    weight_bytes: tuple[int, int] = (0, 0)
    macs: tuple[str, str] = ("", "")  # may hold symbols


def with_totals(plan: PrunePlan, before: Module, after: Module) -> PrunePlan:
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
