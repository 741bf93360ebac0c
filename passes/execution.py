"""Running one pass on a module: plan, apply, drop what became unused, verify, report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..ir import errors
from ..ir.cleanup import drop_dead
from ..ir.core import Module
from ..ir.errors import Code
from ..ir.extras import require
from ..ir.rewrite import Rewriter
from ..ir.verify import verify
from .base import Context, Done, Need, Pass, PassReport, Plan, SkipCode, Skipped

_SHOWN_REASONS = 3


def run_in_place(step: Pass, module: Module, ctx: Context) -> PassReport:
    """Plan and apply a pass to `module` itself, drop what became unused, re-type and verify."""
    start = time.perf_counter()
    ctx = replace(ctx, draft=ctx.draft and step.drafts)
    plan = step.plan(module, ctx)
    if not isinstance(plan, Plan):
        raise TypeError(f"{step.name}.plan returned {type(plan).__name__}, not a Plan")
    rewriter = Rewriter(module, by=step.name)
    told = _outcomes(step, step.apply(rewriter, plan, ctx))
    done = tuple(outcome for outcome in told if isinstance(outcome, Done))
    skipped = (*plan.skipped, *(outcome for outcome in told if isinstance(outcome, Skipped)))
    check_served(step, done, skipped, ctx)
    if rewriter.changed:
        drop_dead(rewriter)
        verify(module)
    return PassReport(
        step.name,
        str(step),
        done,
        skipped,
        (*plan.notes, *ctx.batching.notes()),
        plan,
        seconds=time.perf_counter() - start,
    )


def _outcomes(step: Pass, result: object) -> tuple[Done | Skipped, ...]:
    if not isinstance(result, Iterable):
        raise TypeError(f"{step.name}.apply returned {type(result).__name__}, not a sequence of Done and Skipped")
    told = tuple(result)
    strangers = [type(outcome).__name__ for outcome in told if not isinstance(outcome, Done | Skipped)]
    if strangers:
        raise TypeError(f"{step.name}.apply returned {strangers[0]} among what it did, not Done or Skipped")
    return told


def check_served(step: Pass, done: Sequence[Done], skipped: Iterable[Skipped], ctx: Context) -> None:
    """The user named sites and none of them can be served: an error, where without a selector it is a skip."""
    if done or ctx.tentative or not (ctx.scope.explicit and step.effect.lossy):
        return
    reasons = dict.fromkeys(s.why for s in skipped if s.code is not SkipCode.SCOPE)
    raise errors.error(
        Code.CANNOT_HONOUR,
        f"'{step.name}' can change nothing of what '{ctx.scope.text or 'the selector'}' names",
        help="; ".join(list(reasons)[:_SHOWN_REASONS]) or f"see 'mlc passes {step.name}' for what it works on",
    )


def check_needs(step: Pass, ctx: Context) -> None:
    """Refuse before any work when something the pass needs is missing."""
    if Need.DATA in step.wants() and ctx.data is None:
        raise errors.error(
            Code.NO_DATA, f"'{step.name}' needs calibration data", help="give --data samples.npz (keys = input names)"
        )
    if Need.LABELS in step.wants() and (ctx.data is None or not ctx.data.has_labels):
        raise errors.error(Code.NO_DATA, f"'{step.name}' needs labels", help="give --data and --labels KEY")
    if Need.TORCH in step.wants():
        require("torch", "torch", step.name)
