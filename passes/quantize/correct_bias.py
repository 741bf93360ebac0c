"""`correct_bias`: biases make up for what rounding did to the mean of every channel.

    better = mlc.passes.CorrectBias()(quantized, mlc.Context(source=model, data=..., runner=...))

Empirical bias correction (Nagel et al., 2019), against the model before it was rounded; see refine/bias.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...ir import errors
from ...ir.core import Module, Op
from ...ir.errors import Code
from ...ir.rewrite import Rewriter
from ..base import LOSSY, Context, Done, Effect, Need, Pass, Plan, Skipped
from .prepare import Prepared
from .refine.bias import CHANNELS, bias_sites, correct_biases
from .repeats import repeats


@dataclass(frozen=True)
class BiasPlan(Plan):
    """The operators that are looked at, front to back; what is corrected is seen when the ones before are."""

    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Takes off every bias what rounding added to the mean of its channel, front to back.

    Operators are compared with those of the model before the first step that rounds, by the names of their results, or
    of what they were folded from. Corrections are kept where they are above noise and bring the outputs of the model
    closer. Errors: CANNOT_HONOUR without that model.
    """

    name: ClassVar[str] = "correct_bias"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    effect: ClassVar[Effect] = LOSSY
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune", "smooth", "equalize", "fp16", "int4", "weights", "int8")

    def plan(self, module: Module, ctx: Context) -> BiasPlan:
        sites, skipped = bias_sites(module, _source(module, ctx), ctx.scope.allows)
        return BiasPlan(tuple(skipped), tuple(repeats(ctx.data)), tuple(s.name for s in sites))

    def apply(self, rw: Rewriter, plan: BiasPlan, ctx: Context) -> list[Done | Skipped]:
        return correct_biases(rw, _source(rw.module, ctx), ctx, ctx.scope.allows)


def _source(module: Module, ctx: Context) -> Module:
    """The model before it was rounded, as it was or folded as steps fold it: which of the two has more of the results
    of the module."""
    if ctx.source is None:
        raise errors.error(
            Code.CANNOT_HONOUR,
            "correct_bias compares with the model before it was rounded, and no step before it rounds",
            help="write it behind int8, int4 or weights, or give Context(source=model)",
        )
    made = [op for op in module.graph.ops if op.kind in CHANNELS]
    folded = Prepared.of(ctx.source, ctx, by=CorrectBias.name).module
    _call_alike(folded, made, _names(ctx.source))
    return max((ctx.source, folded), key=lambda m: len(_names(m).intersection(op.results[0].name for op in made)))


def _names(module: Module) -> set[str]:
    return {v.name for op in module.graph.ops for v in op.results}


def _call_alike(folded: Module, made: Sequence[Op], known: set[str]) -> None:
    """Rename what folding made after its twin in the module: an operator of one kind that stands for the same node of
    the model, and that the model did not have (`known`) either."""
    rw = Rewriter(folded, by=CorrectBias.name)
    taken = {v.name for v in folded.values()}
    new = {(op.loc.origin, op.kind): op for op in folded.graph.ops if op.results and op.results[0].name not in known}
    for op in made:
        name, twin = op.results[0].name, new.get((op.loc.origin, op.kind))
        if twin is not None and name not in known | taken:
            rw.rename(twin.results[0], name)
