"""`simplify`: the same function with fewer operators, no larger file, and the same interface."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...ir.cleanup import drop_dead
from ...ir.core import Module, Op
from ...ir.rewrite import Rewriter
from ..base import EXACT, Context, Done, Effect, Pass, Plan, Skipped, option
from .catalogue import RULES
from .cse import merge_equal_constants, merge_equal_ops
from .driver import Driver, Tally
from .layout import move_transposes
from .rule import Rule

_ROUNDS = 30


@dataclass(frozen=True)
class Rewrites:
    """What one rule does to a module: how often, ops that go and come, bytes of constants that go."""

    rule: str
    times: int
    removed: int
    added: int
    saved_bytes: int


@dataclass(frozen=True)
class SimplifyPlan(Plan):
    """What simplifying does, rule by rule. The rules are deterministic, so that applying the plan runs them again."""

    rewrites: tuple[Rewrites, ...] = ()
    ops_before: int = 0
    ops_after: int = 0


@dataclass(frozen=True)
class Simplify(Pass):
    """Folds constants, removes what does nothing, and merges what can be one op. Outputs stay equal within rounding."""

    name: ClassVar[str] = "simplify"
    effect: ClassVar[Effect] = EXACT

    fold_affine: bool = option(
        False,
        unit="bool",
        doc="fold BatchNormalization, Mul, Div, Add and Sub by constants into the weights before them, "
        "and merge such constants; float results round differently",
    )

    def plan(self, module: Module, ctx: Context) -> SimplifyPlan:
        """Simplify a copy (constants are shared) and note what every rule did and refused."""
        twin = module.clone()
        before = sum(1 for _ in twin.walk())
        driver = self.run(Rewriter(twin, by=self.name), ctx)
        return SimplifyPlan(
            skipped=_skipped(driver),
            rewrites=_rewrites(driver.tally),
            ops_before=before,
            ops_after=sum(1 for _ in twin.walk()),
        )

    def apply(self, rw: Rewriter, plan: SimplifyPlan, ctx: Context) -> Sequence[Done]:
        """Run the rules; one entry per rule."""
        found = _rewrites(self.run(rw, ctx).tally)
        assert found == plan.rewrites, "the plan was made for another module"
        return [
            Done(r.rule, f"{r.removed} ops at {r.times} sites", f"{r.added} ops", r.saved_bytes) for r in plan.rewrites
        ]

    def run(self, rw: Rewriter, ctx: Context, only: Collection[Op] | None = None) -> Driver:
        """Run the rules until none fits, `only` on some of the operators in scope; the driver knows what they did."""
        allows = ctx.scope.allows
        may = allows if only is None else lambda op: op in only and allows(op)
        driver = Driver(rw, [rule for rule in RULES if self._asked(rule)], may)
        try:
            for _ in range(_ROUNDS):
                before = rw.changed
                merge_equal_constants(driver)
                driver.settle()
                merge_equal_ops(driver)
                move_transposes(driver)
                if rw.changed == before:
                    drop_dead(rw)
                    return driver
        finally:
            driver.close()
        raise RuntimeError(f"simplify does not come to an end after {_ROUNDS} rounds: {driver.tally}")

    def _asked(self, rule: Rule) -> bool:
        return not rule.asks or bool(getattr(self, rule.asks))


def _rewrites(tally: dict[str, Tally]) -> tuple[Rewrites, ...]:
    return tuple(Rewrites(name, t.times, t.removed, t.added, t.saved_bytes) for name, t in sorted(tally.items()))


def _skipped(driver: Driver) -> tuple[Skipped, ...]:
    """The refusals at ops that are still there, in program order."""
    return tuple(
        Skipped(op.name, refusal.code, f"{rule}: {refusal.why}", refusal.what_to_do)
        for op in driver.module.walk()
        for rule, refusal in driver.refused.get(op, {}).items()
    )
