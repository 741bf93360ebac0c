"""Runs steps in order while instruments watch.

An instrument hears `before(index, step, module)` and `after(index, step, module, report)`. It may fill
`report.metrics` and may raise to stop the run; it never changes the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ..ir import errors
from ..ir.core import Module
from ..ir.errors import Code
from .base import Context, Pass, PassReport, Scope
from .execution import check_needs, run_in_place


@dataclass(frozen=True)
class PlannedStep:
    """One step of a recipe. `scope` names the ops it may touch; it is resolved when its turn comes, because
    earlier steps change the graph. `alias` is what the recipe calls the file that the pass
    is from, if it is from one."""

    action: Pass
    scope: Callable[[Module], Scope] | None = None
    alias: str = ""
    may_idle: bool = False  # whether it may do nothing of what it names: its strength was chosen, or it did it before

    @property
    def name(self) -> str:
        """What the recipe calls it: `mine.shrink`."""
        return f"{self._prefix}{self.action.name}"

    @property
    def _prefix(self) -> str:
        return f"{self.alias}." if self.alias else ""

    def __str__(self) -> str:
        return f"{self._prefix}{self.action}"


class Instrument(Protocol):
    def before(self, index: int, step: PlannedStep, module: Module) -> None: ...

    def after(self, index: int, step: PlannedStep, module: Module, report: PassReport) -> None: ...


def check_order(steps: Sequence[Pass]) -> None:
    """Refuse an order that cannot work: a pass must come after those it names in `after`."""
    for early, step in enumerate(steps):
        for later in steps[early + 1 :]:
            if later.name in step.after:
                raise errors.error(
                    Code.ORDER,
                    f"'{later.name}' comes after '{step.name}', which must see its result",
                    help=f"write {later.name} before {step.name}",
                )


def run(
    steps: Sequence[PlannedStep], module: Module, ctx: Context, instruments: Iterable[Instrument] = ()
) -> tuple[PassReport, ...]:
    """Run all steps on `module` itself; a report per step, also appended to its history.

    The first step has the position `ctx.step` in its recipe.
    """
    check_order([s.action for s in steps])
    for step in steps:
        check_needs(step.action, ctx)
    watchers = tuple(instruments)
    reports = []
    for index, step in enumerate(steps, start=ctx.step):
        for watcher in watchers:
            watcher.before(index, step, module)
        scope = ctx.scope if step.scope is None else step.scope(module)
        ctx = before(step, module, ctx)
        report = _run(
            step.action, module, replace(ctx, step=index, scope=scope, tentative=ctx.tentative or step.may_idle)
        )
        report = replace(report, name=step.name, text=str(step))
        module.history.append(report)
        reports.append(report)
        for watcher in watchers:
            watcher.after(index, step, module, report)
    return tuple(reports)


def _run(step: Pass, module: Module, ctx: Context) -> PassReport:
    return run_in_place(step, module, ctx) if ctx.cache is None else ctx.cache.run(step, module, ctx)


def before(step: PlannedStep, module: Module, ctx: Context) -> Context:
    """The context for a step: the first that rounds, and all after it, see the model as it was before rounding."""
    if not step.action.effect.rounds or ctx.source is not None:
        return ctx
    return replace(ctx, source=module.clone())  # constants are shared
