"""`dequantize`: a quantized model as operators of floats, so that it can be pruned, compared, or quantized anew.

    floats = mlc.passes.Dequantize()(module)

Weights become exactly what their codes stand for; the rounding of activations goes. Weights are widened whenever they
are read, never all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....ir.core import Module
from ....ir.rewrite import Rewriter
from ...base import Context, Done, Effect, Pass, Plan, option
from . import rules_blocks, rules_integer, rules_qdq, rules_qoperator, rules_recurrent, rules_stored
from .work import Rule, Work

RULES: dict[str, Rule] = {
    **rules_qdq.RULES,
    **rules_qoperator.RULES,
    **rules_integer.RULES,
    **rules_blocks.RULES,
    **rules_recurrent.RULES,
    **rules_stored.RULES,
}


@dataclass(frozen=True)
class DequantizePlan(Plan):
    """What becomes floats. The rules are deterministic, so that applying the plan runs them again."""

    sites: tuple[Done, ...] = ()


@dataclass(frozen=True)
class Dequantize(Pass):
    """Turns a quantized model back into floats: Q/DQ pairs, operators on codes (QLinear, Integer), weights in blocks.

    x = (code - zero) * scale for every constant, bit by bit; activations are no longer rounded. What cannot be turned
    back is skipped with the reason.
    """

    name: ClassVar[str] = "dequantize"
    effect: ClassVar[Effect] = Effect(lossy=True, may_grow=True)

    activations: str = option(
        "drop", unit="name", choices=("drop", "keep"), doc="rounding of activations: gone, or kept as Q/DQ pairs"
    )
    ranges: str = option(
        "folded",
        unit="name",
        choices=("folded", "all"),
        doc="where dropped rounding cut values off, a Clip stays: if it can have been a Relu, or everywhere",
    )

    def plan(self, module: Module, ctx: Context) -> DequantizePlan:
        """Turn a copy (constants are shared) and note what happened."""
        work = self._work(Rewriter(module.clone(), by=self.name), ctx)
        skipped = work.run()
        return DequantizePlan(skipped, (), tuple(work.done))

    def apply(self, rw: Rewriter, plan: DequantizePlan, ctx: Context) -> list[Done]:
        work = self._work(rw, ctx)
        work.run()
        assert tuple(work.done) == plan.sites, "the plan was made for another module"
        return work.done

    def _work(self, rw: Rewriter, ctx: Context) -> Work:
        return Work(rw, RULES, ctx.scope, keep=self.activations == "keep", saturate=self.ranges == "all")
