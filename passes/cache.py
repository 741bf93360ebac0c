"""Steps that were run before are not run again: what they made of a model is kept while there is room.

A step is a function of the model, of how it came about, of its options, scope and place in the recipe, and of a context
that is one for a whole compilation. The search for a strength and loops run the same steps many times: trials share
what comes before the step that changes, the rounds of a loop and the choice of a trial are run again for the report.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace

from ..ir.constants import FilePayload
from ..ir.core import Module
from .base import Context, Pass, PassReport
from .execution import check_served, run_in_place
from .statistics import version


@dataclass(frozen=True, eq=False)
class _Made:
    module: Module
    report: PassReport

    @property
    def held(self) -> dict[int, int]:
        """The bytes of every payload that is in memory because of it."""
        constants = (value.constant for value in self.module.constants.values())
        return {id(c.payload): c.nbytes for c in constants if c is not None and not isinstance(c.payload, FilePayload)}


class StepCache:
    """What steps made, in `budget` bytes of weights; what was used longest ago goes first. Belongs to one context."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._made: OrderedDict[Hashable, _Made] = OrderedDict()

    def run(self, step: Pass, module: Module, ctx: Context) -> PassReport:
        """`run_in_place`, or what it made of an equal model before."""
        key = _key(step, module, ctx)
        found = self._made.get(key)
        if found is None:
            report = run_in_place(step, module, ctx)
            self._made[key] = _Made(module.clone(), replace(report, metrics={}))
            self._make_room()
            return report
        self._made.move_to_end(key)
        check_served(step, found.report.done, found.report.skipped, ctx)  # it may have been a trial that made it
        module.become(found.module.clone())
        return replace(found.report, metrics={})

    def _make_room(self) -> None:
        while self._made and self._bytes() > self._budget:
            self._made.popitem(last=False)

    def _bytes(self) -> int:
        """What all of it holds: models share payloads."""
        held: dict[int, int] = {}
        for made in self._made.values():
            held |= made.held
        return sum(held.values())


def _key(step: Pass, module: Module, ctx: Context) -> Hashable:
    path = tuple(told.text for told in module.history if isinstance(told, PassReport))
    before = version(ctx.source) if ctx.source is not None else ""
    options = type(step), repr(step)  # values of options need not be hashable
    return options, version(module), path, before, ctx.step, ctx.scope, ctx.draft and step.drafts
