"""`correct_bias`: biases make up for what rounding did to the mean of every channel.

    better = mlc.passes.CorrectBias()(quantized, mlc.Context(source=model, data=..., runner=...))

Empirical bias correction (Nagel et al., 2019), against the model as it came; see refine/bias.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir import errors
from ...ir.core import Module
from ...ir.errors import Code
from ...ir.rewrite import Rewriter
from ..base import LOSSY, Context, Done, Effect, Need, Pass, Plan
from .prepare import Prepared
from .refine.bias import bias_sites, correct_biases


@dataclass(frozen=True)
class BiasPlan(Plan):
    """The operators that are looked at, front to back; what is corrected is seen when the ones before are."""

    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Takes off every bias what rounding added to the mean of its channel, front to back.

    Operators are compared with those of the model before the first step by the names of their results. Corrections are
    kept where they are above noise and bring the outputs of the model closer. Errors: CANNOT_HONOUR without the model
    as it came.
    """

    name: ClassVar[str] = "correct_bias"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    effect: ClassVar[Effect] = LOSSY
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune", "smooth", "equalize", "fp16", "int4", "weights", "int8")

    def plan(self, module: Module, ctx: Context) -> BiasPlan:
        sites, skipped = bias_sites(module, _source(ctx), ctx.scope.allows)
        return BiasPlan(tuple(skipped), sites=tuple(s.name for s in sites))

    def apply(self, rw: Rewriter, plan: BiasPlan, ctx: Context) -> list[Done]:
        told = correct_biases(rw, _source(ctx), ctx, ctx.scope.allows)
        return [d for d in told if not d.after.startswith("kept")]


def _source(ctx: Context) -> Module:
    """The model as it came, folded as the steps before fold it, so that results have the same names."""
    if ctx.source is None:
        raise errors.error(
            Code.CANNOT_HONOUR,
            "correct_bias compares with the model before the first step, which is not known here",
            help="use it in a recipe, or give Context(source=model)",
        )
    return Prepared.of(ctx.source, ctx, by=CorrectBias.name).module
